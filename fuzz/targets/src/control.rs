//! The control socket's bytes: cut into messages however they arrive, read as calls and as answers.

use xipsec::control::frame::{Decoder, encode};
use xipsec::control::protocol::{Call, Method, Reply};

/// Longest message here, bytes; small, so that the limit is met.
const LIMIT: usize = 4096;

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let calls = Method::ALL.map(|method| {
        let call = Call {
            method: method.full_name(),
            parameters: serde_json::Value::Null,
        };
        [&[7][..], &encode(&call).unwrap()].concat()
    });
    let more = [
        &b"\x01{\"method\":\"io.xipsec.Gateway.Stats\",\"parameters\":{\"a\":[1,null,1e9]}}\0"[..],
        b"\xff{\"method\":7}\0\0{\0",
        b"\x05{\"error\":\"io.xipsec.Gateway.NotReady\",\"parameters\":{}}\0rest",
        b"\x03[[[[[[[[\0",
    ];
    calls.into_iter().chain(more.map(<[u8]>::to_vec)).collect()
}

pub(crate) fn run(bytes: &[u8]) {
    let Some((first, stream)) = bytes.split_first() else {
        return;
    };
    let whole = messages(stream, stream.len().max(1));
    let cut = messages(stream, usize::from(*first).max(1));
    let count = whole.len().min(cut.len());
    assert_eq!(whole[..count], cut[..count], "the same whatever the pieces");
    for message in whole {
        assert!(!message.contains(&0));
        if let Ok(call) = serde_json::from_slice::<Call>(&message) {
            let _known = Method::from_full_name(&call.method);
            let again = encode(&call).unwrap();
            let (end, text) = again.split_last().unwrap();
            assert_eq!(*end, 0);
            assert_eq!(serde_json::from_slice::<Call>(text).unwrap(), call);
        }
        if let Ok(reply) = serde_json::from_slice::<Reply>(&message) {
            let again = encode(&reply).unwrap();
            let text = &again[..again.len() - 1];
            assert_eq!(serde_json::from_slice::<Reply>(text).unwrap(), reply);
        }
    }
}

/// The messages of a stream that arrives in pieces.
fn messages(stream: &[u8], piece: usize) -> Vec<Vec<u8>> {
    let mut decoder = Decoder::new(LIMIT);
    let mut found = Vec::new();
    for piece in stream.chunks(piece) {
        if decoder.push(piece).is_err() {
            break;
        }
        found.extend(std::iter::from_fn(|| decoder.next_message()));
    }
    found
}
