//! Calls as clients make them: their results, their errors, and the effects of running a call again. Most
//! run with a client that answers every copy late, so each call runs twice.

mod attributes;
mod credentials;
mod crowd;
mod datagrams;
mod descriptors;
mod directories;
mod etfs;
mod fifos;
mod file_events;
mod files;
mod groups;
mod inline;
mod interfaces;
mod kqueue;
mod limits;
mod links;
mod locks;
mod messages;
mod model;
mod pipes;
mod poll;
mod processes;
mod rlimits;
mod scale;
mod shares;
// The same shrinker as in the tool that compares two servers.
#[path = "../../../diff/src/shrink.rs"]
mod shrink;
mod signals;
mod sockets;
mod streams;
mod sysctl;
mod sysctl_lists;
mod time;
mod timers;
mod usage;
