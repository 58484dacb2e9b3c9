//! Placeholder until the program lands in the next commit.
#![no_std]
#![no_main]
