//! The features that a kernel may lack: names, and the Linux version that brought each.

use std::fmt;
use std::ops::{BitOr, BitOrAssign, Sub};

/// A set of io_uring features.
///
/// [`Config::without`](crate::Config::without) takes a set of features, to run as on an older kernel;
/// [`Ring::features`](crate::Ring::features) returns the features in use.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Features(u32);

macro_rules! features {
    ($($(#[$doc:meta])* $name:ident = $bit:literal, $text:literal, $since:literal, $fallback:literal;)*) => {
        impl Features {
            $($(#[$doc])* pub const $name: Features = Features(1 << $bit);)*

            /// Every feature the ring knows of.
            pub const ALL: Features = Features($(1 << $bit)|*);

            /// One row for each feature: the feature, its name, the Linux version that has it, and what
            /// the ring does without it (empty if the ring cannot run without it).
            pub(crate) const TABLE: &'static [Row] = &[
                $(Row { feature: Features::$name, name: $text, since: $since, fallback: $fallback },)*
            ];
        }
    };
}

/// A row of [`Features::TABLE`].
pub(crate) struct Row {
    pub feature: Features,
    pub name: &'static str,
    pub since: &'static str,
    pub fallback: &'static str,
}

features! {
    /// Completions that do not fit the CQ are kept by the kernel (`IORING_FEAT_NODROP`).
    NODROP = 0, "IORING_FEAT_NODROP", "5.5", "";
    /// Sockets that are not ready are polled by the kernel (`IORING_FEAT_FAST_POLL`).
    FAST_POLL = 1, "IORING_FEAT_FAST_POLL", "5.7", "";
    /// Waiting with a timeout (`IORING_FEAT_EXT_ARG`).
    EXT_ARG = 2, "IORING_FEAT_EXT_ARG", "5.11", "";
    /// Direct descriptors, their slots allocated by the kernel (`IORING_FILE_INDEX_ALLOC`).
    DIRECT_DESCRIPTORS = 3, "direct descriptors (IORING_FILE_INDEX_ALLOC)", "5.19", "";
    /// Receive buffers in a ring shared with the kernel (`IORING_REGISTER_PBUF_RING`).
    PROVIDED_BUFFER_RING = 4, "a provided buffer ring (IORING_REGISTER_PBUF_RING)", "5.19", "";
    /// Cancelling all there is, at the end (`IORING_ASYNC_CANCEL_ANY`).
    CANCEL_ANY = 5, "IORING_ASYNC_CANCEL_ANY", "5.19", "";
    /// A batch is submitted whole even if one entry is bad (`IORING_SETUP_SUBMIT_ALL`).
    SUBMIT_ALL = 6, "IORING_SETUP_SUBMIT_ALL", "5.18", "a bad entry ends its batch, the rest goes with the next";
    /// `io_uring_enter` without looking up the ring's descriptor (`IORING_REGISTER_RING_FDS`).
    REGISTERED_RING = 7, "IORING_REGISTER_RING_FDS", "5.18", "the ring's descriptor is looked up on each enter";
    /// No interrupt of user space for completion work (`IORING_SETUP_COOP_TASKRUN`).
    COOP_TASKRUN = 8, "IORING_SETUP_COOP_TASKRUN", "5.19", "completion work interrupts the ring's thread";
    /// One thread submits, the kernel need not lock (`IORING_SETUP_SINGLE_ISSUER`).
    SINGLE_ISSUER = 9, "IORING_SETUP_SINGLE_ISSUER", "6.0", "the kernel locks for each submission";
    /// Completion work runs when the thread waits, not before (`IORING_SETUP_DEFER_TASKRUN`).
    DEFER_TASKRUN = 10, "IORING_SETUP_DEFER_TASKRUN", "6.1", "completion work runs on any return from the kernel";
    /// No index array between the SQ and its entries (`IORING_SETUP_NO_SQARRAY`).
    NO_SQARRAY = 11, "IORING_SETUP_NO_SQARRAY", "6.6", "the kernel reads an index for each entry";
    /// One accept request for all connections (`IORING_ACCEPT_MULTISHOT`).
    MULTISHOT_ACCEPT = 12, "multishot accept", "5.19", "accept is armed again for each connection";
    /// One recv request for all that arrives (`IORING_RECV_MULTISHOT`).
    MULTISHOT_RECV = 13, "multishot recv", "6.0", "recv is armed again for each message";
    /// The kernel goes on with a short send by itself (`MSG_WAITALL` on sends), so that sends can be
    /// linked.
    SEND_WAITALL = 14, "MSG_WAITALL on sends", "5.19", "sends are not linked, each waits for the one before";
    /// Zero copy sends (`IORING_OP_SEND_ZC` with `IORING_RECVSEND_FIXED_BUF`).
    SEND_ZC = 15, "IORING_OP_SEND_ZC", "6.0", "sends are copied";
    /// Vectored zero copy sends from registered buffers (`IORING_OP_SENDMSG_ZC`).
    SENDMSG_ZC_FIXED = 16, "IORING_OP_SENDMSG_ZC from registered buffers", "6.15", "zero copy sends go chunk by chunk";
    /// Options of direct descriptors (`SOCKET_URING_OP_GETSOCKOPT`).
    GETSOCKOPT = 17, "SOCKET_URING_OP_GETSOCKOPT", "6.7", "no listener can ask who has connected";
    /// The ring takes no other requests than those it makes (`IORING_REGISTER_RESTRICTIONS`).
    RESTRICTIONS = 18, "IORING_REGISTER_RESTRICTIONS", "5.10", "the ring takes any request";
}

impl Features {
    /// The empty set.
    pub const NONE: Features = Features(0);

    /// Returns `true` if all of `other` is in this set.
    pub const fn contains(self, other: Features) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns `true` if the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn rows(self) -> impl Iterator<Item = &'static Row> {
        Features::TABLE.iter().filter(move |row| self.contains(row.feature))
    }
}

impl BitOr for Features {
    type Output = Features;
    fn bitor(self, other: Features) -> Features {
        Features(self.0 | other.0)
    }
}

impl BitOrAssign for Features {
    fn bitor_assign(&mut self, other: Features) {
        self.0 |= other.0;
    }
}

impl Sub for Features {
    type Output = Features;
    fn sub(self, other: Features) -> Features {
        Features(self.0 & !other.0)
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.rows().map(|row| row.name)).finish()
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, row) in self.rows().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { ", " }, row.name)?;
        }
        Ok(())
    }
}
