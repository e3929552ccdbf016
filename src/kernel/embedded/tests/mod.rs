//! Calls as clients make them: what succeeds, what fails and how, and what running a call again does
//! and does not do. Most run with a client that answers every copy late, so each call runs twice.

mod attributes;
mod descriptors;
mod directories;
mod etfs;
mod fifos;
mod files;
mod limits;
mod links;
mod locks;
mod pipes;
mod processes;
mod scale;
mod sockets;
mod sysctl;
mod time;
