//! A small kernel in memory.
