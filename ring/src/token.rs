//! The request that a completion belongs to, packed into its 64 bits of `user_data`.

/// The kinds of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Op {
    /// On a listener: `index` is the listener's.
    Accept = 1,
    /// Cancels an accept; `index` is the listener's.
    CancelAccept,
    /// On a socket: `index` is the socket's, as in all below but `Send`.
    Recv,
    CancelRecv,
    /// Cancels a request of a closing socket.
    CancelAll,
    Shutdown,
    Close,
    /// A step of a send: `index` is the send's.
    Send,
    /// The poll of the waker's eventfd.
    Wake,
    /// A peer query: `index` is the question's.
    PeerQuery,
    /// On a socket: the poll for the hang-up of its peer.
    HangUp,
    /// On a socket: a look whether its stream has ended.
    Look,
}

/// The identity of a request: `op` in 8 bits, `index` in 24, `generation` in 32.
///
/// A generation other than that of the socket, send, listener or question at the index now marks a
/// stale completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub op: Op,
    pub index: u32,
    pub generation: u32,
}

impl Token {
    /// Indices are smaller than this.
    pub const INDICES: u32 = 1 << 24;

    pub fn pack(self) -> u64 {
        debug_assert!(self.index < Token::INDICES);
        (self.op as u64) << 56 | u64::from(self.index) << 32 | u64::from(self.generation)
    }

    /// Unpacks a token; `None` if no ring has packed this value.
    pub fn unpack(user_data: u64) -> Option<Token> {
        let op = match (user_data >> 56) as u8 {
            1 => Op::Accept,
            2 => Op::CancelAccept,
            3 => Op::Recv,
            4 => Op::CancelRecv,
            5 => Op::CancelAll,
            6 => Op::Shutdown,
            7 => Op::Close,
            8 => Op::Send,
            9 => Op::Wake,
            10 => Op::PeerQuery,
            11 => Op::HangUp,
            12 => Op::Look,
            _ => return None,
        };
        let index = (user_data >> 32) as u32 & (Token::INDICES - 1);
        Some(Token { op, index, generation: user_data as u32 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_and_unpacks() {
        use Op::*;
        let sockets = [Recv, CancelRecv, CancelAll, Shutdown, Close, Send, HangUp, Look];
        for op in [Accept, CancelAccept, Wake, PeerQuery].into_iter().chain(sockets) {
            for index in [0, 1, Token::INDICES - 1] {
                for generation in [0, 1, u32::MAX] {
                    let token = Token { op, index, generation };
                    assert_eq!(Token::unpack(token.pack()), Some(token));
                }
            }
        }
        assert_eq!(Token::unpack(0), None);
        assert_eq!(Token::unpack(u64::MAX), None);
    }
}
