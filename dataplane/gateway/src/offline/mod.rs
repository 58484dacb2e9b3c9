//! The pipeline without threads, NICs or a kernel.

pub mod capture;

pub mod replay;
