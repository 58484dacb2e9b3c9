//! The SAD and both SPDs of one generation, as the stages read them.
