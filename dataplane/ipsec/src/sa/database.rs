//! The SAD: (SPI, protocol, destination) to SA (RFC 4301 §4.4.2).
