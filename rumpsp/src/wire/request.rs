//! Encodes the frames a client sends: its requests, and its answers to the server's copies. Each is
//! appended to the bytes that are to be sent.

use super::*;

/// Appends a frame whose body is written by `body`. If `body` fails, nothing is appended.
fn append<E>(
    out: &mut Vec<u8>,
    mut header: Header,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let start = out.len();
    out.extend_from_slice(&header.encode());
    if let Err(error) = body(out) {
        out.truncate(start);
        return Err(error);
    }
    header.len = (out.len() - start) as u64;
    out[start..start + 8].copy_from_slice(&header.len.to_le_bytes());
    Ok(())
}

fn append_bytes(out: &mut Vec<u8>, reqno: u64, kind: Kind, word: u32, body: &[u8]) {
    let len = (HEADER_LEN + body.len()) as u64;
    let header = Header { len, reqno, class: Class::Request.number(), kind: kind.number(), word };
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(body);
}

/// Appends a call: its number and its arguments, one slot of 8 bytes each.
pub fn syscall_request(out: &mut Vec<u8>, reqno: u64, number: i32, args: &[u64]) {
    append_bytes(out, reqno, Kind::Syscall, number as u32, &[]);
    let start = out.len() - HEADER_LEN;
    out.extend(args.iter().flat_map(|arg| arg.to_le_bytes()));
    let len = (out.len() - start) as u64;
    out[start..start + 8].copy_from_slice(&len.to_le_bytes());
}

/// Appends a guest or exec handshake with the command's name, and adds the NUL.
pub fn handshake_request(out: &mut Vec<u8>, reqno: u64, kind: Handshake, name: &str) {
    let mut body = name.as_bytes().to_vec();
    body.retain(|&byte| byte != 0);
    body.push(0);
    append_bytes(out, reqno, Kind::Handshake, kind.number(), &body);
}

/// Appends a fork handshake; with `cancel`, a request to forget the prefork.
pub fn fork_request(out: &mut Vec<u8>, reqno: u64, token: &Token, cancel: bool) {
    let mut body = [0; FORK_BODY_LEN];
    body[..TOKEN_LEN].copy_from_slice(token);
    body[TOKEN_LEN..].copy_from_slice(&i32::from(cancel).to_le_bytes());
    append_bytes(out, reqno, Kind::Handshake, Handshake::Fork.number(), &body);
}

/// Appends a request for a prefork.
pub fn prefork_request(out: &mut Vec<u8>, reqno: u64) {
    append_bytes(out, reqno, Kind::Prefork, 0, &[]);
}

/// Appends the answer to a COPYIN or COPYINSTR, with the bytes that `fill` appends. If `fill` fails,
/// nothing is appended. Stock clients answer both with type COPYIN.
pub fn copyin_response<E>(
    out: &mut Vec<u8>,
    reqno: u64,
    fill: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let class = Class::Response.number();
    append(out, Header { len: 0, reqno, class, kind: Kind::Copyin.number(), word: 0 }, fill)
}

/// Appends the answer to an ANONMMAP: the address of the memory, or 0.
pub fn anonmmap_response(out: &mut Vec<u8>, reqno: u64, addr: u64) {
    let class = Class::Response.number();
    let header = Header { len: 0, reqno, class, kind: Kind::Anonmmap.number(), word: 0 };
    let filled: Result<(), std::convert::Infallible> = append(out, header, |out| {
        out.extend_from_slice(&addr.to_le_bytes());
        Ok(())
    });
    let Ok(()) = filled;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_its_header_and_a_slot_an_argument() {
        let mut out = vec![9];
        syscall_request(&mut out, 5, -2, &[1, 2]);
        let header = Header::decode(out[1..25].try_into().unwrap());
        let expected = Header { len: 40, reqno: 5, class: 0, kind: 1, word: -2i32 as u32 };
        assert_eq!(header, expected);
        assert_eq!((read_u64(&out, 25), read_u64(&out, 33), out.len()), (1, 2, 41));
    }

    #[test]
    fn a_name_has_one_nul_at_its_end() {
        let mut out = Vec::new();
        handshake_request(&mut out, 1, Handshake::Exec, "a\0b");
        assert_eq!(&out[24..], b"ab\0");
        assert_eq!(read_u32(&out, 20), 3);
    }

    #[test]
    fn a_fork_shows_its_token() {
        let mut out = Vec::new();
        fork_request(&mut out, 1, &[7; 16], true);
        assert_eq!(out.len(), HEADER_LEN + FORK_BODY_LEN);
        assert_eq!((&out[24..40], read_u32(&out, 40)), (&[7; 16][..], 1));
    }

    #[test]
    fn a_copy_that_fails_leaves_nothing() {
        let mut out = vec![1, 2];
        let failed = copyin_response(&mut out, 1, |out| {
            out.push(3);
            Err("no")
        });
        assert_eq!((failed, &out[..]), (Err("no"), &[1, 2][..]));
    }

    #[test]
    fn answers_have_their_length() {
        let mut out = Vec::new();
        copyin_response(&mut out, 3, |out| {
            out.extend_from_slice(b"abc");
            Ok::<_, ()>(())
        })
        .unwrap();
        assert_eq!((read_u64(&out, 0), out[16], out[18]), (27, 1, 2));
        out.clear();
        anonmmap_response(&mut out, 3, 0x1000);
        assert_eq!((read_u64(&out, 0), out[18], read_u64(&out, 24)), (32, 6, 0x1000));
    }
}
