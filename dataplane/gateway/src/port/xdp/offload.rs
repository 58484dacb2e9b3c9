//! Offloads that get between XDP and the wire, switched off for as long as the port lives.

use super::Choice;
use super::diagnose::{self, Operation, PortError};
use super::program::AttachMode;
use crate::port::interface::{Control, Switch};

/// What was switched off on one interface, to be switched on again.
#[derive(Debug)]
pub struct Offloads {
    name: String,
    control: Control,
    switched_off: Vec<Switch>,
}

impl Offloads {
    /// Switches off what XDP in that mode cannot live with, and says what it was.
    ///
    /// # Errors
    /// What the kernel refuses. What was switched off by then is on again.
    pub fn switch_off(name: &str, mode: AttachMode) -> Result<(Self, Vec<Choice>), PortError> {
        let explain = |error| diagnose::explain(Operation::Offload, name, &error);
        let mut offloads = Self {
            name: name.to_owned(),
            control: Control::new().map_err(explain)?,
            switched_off: Vec::new(),
        };
        let mut choices = Vec::new();
        for (switch, what, why) in unwelcome(mode) {
            // What the driver does not know is not on.
            if !offloads.control.is_on(name, switch).unwrap_or(false) {
                continue;
            }
            offloads
                .control
                .turn(name, switch, false)
                .map_err(explain)?;
            offloads.switched_off.push(switch);
            choices.push(Choice {
                what,
                asked: "on",
                got: "off",
                why: format!("{why}; restored at exit"),
            });
        }
        Ok((offloads, choices))
    }
}

impl Drop for Offloads {
    fn drop(&mut self) {
        for switch in self.switched_off.drain(..) {
            // The interface may be gone, and there is nobody left to tell.
            self.control
                .turn(&self.name, switch, true)
                .unwrap_or_default();
        }
    }
}

fn unwelcome(mode: AttachMode) -> Vec<(Switch, &'static str, &'static str)> {
    let mut all = vec![(
        Switch::ReceiveVlan,
        "rx-vlan-offload",
        "else XDP cannot tell a VLAN's packet from an untagged one",
    )];
    if mode == AttachMode::Generic {
        let why = "generic XDP drops merged packets at the socket";
        all.push((Switch::Gro, "generic-receive-offload", why));
        all.push((Switch::Lro, "large-receive-offload", why));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_is_unwelcome_in_generic_mode_only() {
        let names = |mode| -> Vec<_> {
            unwelcome(mode)
                .into_iter()
                .map(|(_, what, _)| what)
                .collect()
        };
        assert_eq!(names(AttachMode::Native), ["rx-vlan-offload"]);
        assert_eq!(names(AttachMode::Generic).len(), 3);
    }
}
