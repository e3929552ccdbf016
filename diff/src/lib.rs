//! The parts of `rumpring-diff`, which checks whether two servers give the same answers.
//!
//! A sequence of calls is text ([`parse`]), which becomes [`step`]s, with [`structures`] and
//! [`numbers`] by NetBSD's names. A [`duel`] runs it on two [`side`]s and compares each step's
//! [`outcome`], after [`mask`]ing the fields that no two kernels agree on. Sequences are written by
//! hand ([`scripts`]) or [`random`]. A difference is made short ([`shrink`]), and is either [`known`]
//! or reported ([`report`]). [`prepare`] makes room in a server and [`tidy`] cleans up; [`run`]
//! combines all of it.

#![forbid(unsafe_code)]
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]

pub mod duel;
pub mod known;
pub mod mask;
pub mod numbers;
pub mod outcome;
pub mod parse;
pub mod prepare;
pub mod random;
pub mod report;
pub mod run;
pub mod scripts;
pub mod shrink;
pub mod side;
pub mod step;
pub mod structures;
pub mod tidy;
