//! Messages, clients and their time.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

struct Echo;

impl Answers for Echo {
    fn answer(&self, method: Method, parameters: &Value) -> Result<Value, Refused> {
        match method {
            Method::Stats => Err(Refused::new("NotReady", "")),
            other => Ok(json!({ "method": other.name(), "parameters": parameters })),
        }
    }
}

const ROOT: User = User(0);

fn error(message: &[u8]) -> Option<String> {
    reply(message, &Echo, ROOT).error
}

#[test]
fn every_message_gets_an_answer() {
    let ok = reply(br#"{"method":"io.xipsec.Gateway.Status"}"#, &Echo, ROOT);
    assert_eq!(ok.parameters["method"], "Status");
    assert_eq!(ok.error, None);
    let stats = error(br#"{"method":"io.xipsec.Gateway.Stats","parameters":{}}"#);
    assert_eq!(stats.as_deref(), Some("io.xipsec.Gateway.NotReady"));
    let unknown = error(br#"{"method":"io.xipsec.Gateway.Explode"}"#);
    assert_eq!(
        unknown.as_deref(),
        Some("org.varlink.service.MethodNotFound")
    );
    for nonsense in [
        &b""[..],
        b"{",
        b"[]",
        b"{\"method\":7}",
        b"\xff\xfe",
        b"null",
    ] {
        let invalid = error(nonsense);
        assert_eq!(
            invalid.as_deref(),
            Some("org.varlink.service.InvalidParameter")
        );
    }
    let info = reply(br#"{"method":"org.varlink.service.GetInfo"}"#, &Echo, ROOT);
    assert_eq!(info.parameters["product"], "xipsec");
}

#[test]
fn strangers_look_and_do_not_touch() {
    let stranger = User(rustix::process::geteuid().as_raw().wrapping_add(12_345));
    for method in Method::ALL {
        let call = json!({ "method": method.full_name() }).to_string();
        let denied = reply(call.as_bytes(), &Echo, stranger).error;
        let denied = denied.as_deref() == Some("io.xipsec.Gateway.PermissionDenied");
        assert_eq!(denied, method.changes(), "{}", method.name());
        let root = error(call.as_bytes());
        assert_ne!(root.as_deref(), Some("io.xipsec.Gateway.PermissionDenied"));
    }
}

/// Serves one end of a pair and lets `client` work with the other; how long it was served.
fn served<F: Future<Output = ()>>(client: impl FnOnce(UnixStream) -> F) -> Duration {
    const SHORT: Patience = Patience {
        request: Duration::from_millis(300),
        idle: Duration::from_millis(900),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (here, there) = UnixStream::pair().unwrap();
        let place = Clients::new().admit(ROOT).unwrap();
        let start = Instant::now();
        let serve = async {
            serve_client(here, &Echo, &place, SHORT).await;
            start.elapsed()
        };
        let (elapsed, ()) = tokio::join!(serve, client(there));
        elapsed
    })
}

#[test]
fn a_silent_client_is_let_go() {
    let elapsed = served(|stream| async move {
        let mut stream = stream;
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
    });
    assert!(elapsed >= Duration::from_millis(900), "{elapsed:?}");
}

#[test]
fn a_request_that_trickles_ends_with_its_own_time() {
    let elapsed = served(|stream| async move {
        let mut stream = stream;
        // A byte in time each, for ever: the request as a whole is late.
        while stream.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    assert!(elapsed >= Duration::from_millis(300), "{elapsed:?}");
    assert!(elapsed < Duration::from_millis(900), "{elapsed:?}");
}

#[test]
fn a_client_may_ask_again_and_again() {
    let elapsed = served(|stream| async move {
        let mut stream = stream;
        for _ in 0..4 {
            let call = b"{\"method\":\"io.xipsec.Gateway.Status\"}\0";
            stream.write_all(call).await.unwrap();
            let mut answer = [0; 4096];
            let count = stream.read(&mut answer).await.unwrap();
            assert_eq!(answer[count - 1], 0);
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    });
    assert!(elapsed >= Duration::from_millis(1600), "{elapsed:?}");
}
