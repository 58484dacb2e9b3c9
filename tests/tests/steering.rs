//! probe
#[test]
fn load() {
    use xipsec::port::settings::Side;
    use xipsec::port::xdp::program::*;
    for entry in [Entry::Plain, Entry::Frags, Entry::RedirectAll] {
        let s = SteerSettings {
            entry,
            ..SteerSettings::new(Side::Unprotected, [2, 0, 0, 0, 0, 1], 2)
        };
        match SteerProgram::load("x", &s) {
            Ok(mut p) => println!("{entry:?} id {:?} run {:?}", p.id(), p.test_run(&[0; 64])),
            Err(e) => println!("{entry:?} {e}"),
        }
    }
}
