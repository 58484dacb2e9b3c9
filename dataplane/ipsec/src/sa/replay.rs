//! The anti-replay window and ESN reconstruction (RFC 4303 §3.4.3, Appendix A).
