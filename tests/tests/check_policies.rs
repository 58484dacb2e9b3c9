//! Goal: every mistake of the interface document is told with file, line and key. Method: a good
//! file, spoilt in one place; `*` marks the line that must be told, `^` a key told as missing.

use xipsec_tests::expect::conclude;
use xipsec_tests::mistakes::{policy, replaced, tells};

const UDP: &str = "protocol = \"udp\"";

#[test]
fn associations_of_policies() {
    conclude(tells(&[
        policy("an SA that does not exist", &["*sa = [\"nowhere\"]"]),
        policy("an SA that points the other way", &["*sa = [\"back\"]"]),
        policy("an empty bundle", &["*sa = []"]),
        policy(
            "an SA with bypass",
            &["action = \"bypass\"", "*sa = [\"away\"]"],
        ),
        policy(
            "an SA with discard",
            &["action = \"discard\"", "*sa = [\"away\"]"],
        ),
    ]));
}

//= test T103
#[test]
fn selectors() {
    conclude(tells(&[
        policy("ports without a protocol", &["*local_port = 443"]),
        policy(
            "ports of ICMP",
            &["protocol = \"icmp\"", "*remote_port = 1"],
        ),
        policy("an ICMP type of UDP", &[UDP, "*icmp_type = 8"]),
        policy("host bits", &["*local = \"10.3.0.1/24\""]),
        policy("mixed families", &["*remote = \"fd00::/64\""]),
        policy(
            "mixed families in a list",
            &["*local = [\"10.3.0.0/24\", \"fd00::/64\"]"],
        ),
        policy("a reversed range", &["*local = \"10.3.0.9-10.3.0.1\""]),
        policy("a reversed port range", &[UDP, "*local_port = \"9-1\""]),
    ]));
}

#[test]
fn routes_and_neighbours() {
    let (route, neighbor) = ("port = \"wan0\"\nvia", "port = \"wan0\"\naddress");
    let prefix = "prefix = \"10.2.0.0/16\"";
    conclude(tells(&[
        replaced("a route's unknown port", route, "*port = \"wan9\"\nvia"),
        replaced(
            "a neighbour's unknown port",
            neighbor,
            "*port = \"lan9\"\naddress",
        ),
        replaced("host bits of a route", prefix, "*prefix = \"10.2.0.1/16\""),
    ]));
}
