//! The outbound sequence counter (RFC 4303 §3.3.3): never repeats, never rolls over.
