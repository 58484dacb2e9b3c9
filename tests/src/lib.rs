//! The harness of the black-box and live tests, and the laboratory of `cargo xtask lab` and `demo`.
//!
//! It sees `xipsec` as an operator does: a binary, a configuration file, a control socket, packets.
//! Everything it makes (namespaces, processes, directories) carries the maker's process id in its
//! name, so two runs side by side never meet, and goes away when its value is dropped.
#![deny(unsafe_code)]

pub mod shell;

pub mod files;

pub mod netns;

pub mod veth;

pub mod guest;

pub mod binary;

pub mod suite;

pub mod algorithms;

pub mod config;

pub mod cell;

pub mod packets;

pub mod fragments;

pub mod peer;

pub mod expect;

pub mod gateway;

pub mod sockets;

pub mod kernel_peer;

pub mod topology;

pub mod capture;

pub mod iperf;

pub mod proof;

pub mod replay;

pub mod mistakes;
