//! The host port (TUN): what is for the machine itself, and what it sends.
