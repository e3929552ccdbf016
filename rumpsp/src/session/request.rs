//! Handling of the client's frames, by kind and by the session's state.

use super::*;
use crate::wire::{FORK_BODY_LEN, Handshake, TOKEN_LEN, read_u32};

impl Session {
    /// Acts on one frame.
    pub(super) fn frame(
        &mut self,
        header: Header,
        body: Body<'_>,
        limits: &Limits,
        host: &mut impl Host,
    ) {
        match header.class() {
            Some(Class::Response) => self.answered(header, body, host),
            Some(Class::Error) if self.asked(&header).is_some() => self.declined(header, host),
            Some(Class::Request) if self.closed => {}
            Some(Class::Request) if self.state == State::New => self.first(header, &body, host),
            Some(Class::Request) => self.request(header, &body, limits, host),
            _ => host.send(&wire::error_response(header.reqno, ErrorCode::Malformed)),
        }
    }

    /// Handles the first request, which must be a handshake that makes a process.
    fn first(&mut self, header: Header, body: &[u8], host: &mut impl Host) {
        let handshake = match header.kind() {
            Some(Kind::Handshake) => Handshake::from_number(header.word),
            _ => None,
        };
        let reqno = header.reqno;
        let refused = match handshake {
            Some(Handshake::Guest) => self.guest(reqno, body, host),
            Some(Handshake::Fork) => self.fork(reqno, body, host),
            Some(Handshake::Auth | Handshake::Exec) | None => {
                Err((ErrorCode::Auth, "no handshake that can be first"))
            }
        };
        if let Err((code, why)) = refused {
            self.refuse(Refusal { reqno, code: Some(code), why }, host);
        }
    }

    fn guest(&mut self, reqno: u64, body: &[u8], host: &mut impl Host) -> Refused {
        let command = command(body)?;
        self.state = State::Handshaking { reqno };
        self.start(KernelOp::Spawn { command }, host);
        Ok(())
    }

    fn fork(&mut self, reqno: u64, body: &[u8], host: &mut impl Host) -> Refused {
        if body.len() != FORK_BODY_LEN {
            return Err((ErrorCode::Malformed, "a fork handshake of the wrong length"));
        }
        let token: &Token = body.first_chunk().expect("the length was checked");
        let cancel = read_u32(body, TOKEN_LEN) != 0;
        let Some(prefork) = host.take_prefork(token) else {
            return Err((ErrorCode::InvalidPrefork, "no such prefork"));
        };
        if cancel {
            host.discard(prefork);
            // A cancel has no response but the end of the connection, as in the reference.
            self.state = State::HungUp;
            host.hang_up("its prefork was cancelled");
            return Ok(());
        }
        self.state = State::Handshaking { reqno };
        self.start(KernelOp::Adopt { prefork }, host);
        Ok(())
    }

    /// Handles a request of a client with a process.
    fn request(&mut self, header: Header, body: &[u8], limits: &Limits, host: &mut impl Host) {
        let reqno = header.reqno;
        let refused = match header.kind() {
            Some(Kind::Syscall) => {
                self.syscall(header, body, limits, host);
                Ok(())
            }
            Some(Kind::Prefork) => self.prefork(reqno, host),
            Some(Kind::Handshake) => self.exec(header, body, host),
            _ => {
                host.send(&wire::error_response(reqno, ErrorCode::Malformed));
                Ok(())
            }
        };
        if let Err((code, why)) = refused {
            self.refuse(Refusal { reqno, code: Some(code), why }, host);
        }
    }

    fn syscall(&mut self, header: Header, body: &[u8], limits: &Limits, host: &mut impl Host) {
        let reqno = header.reqno;
        if self.calls.len() >= limits.calls || !host.admits_call() {
            return host.send(&wire::error_response(reqno, ErrorCode::TryAgain));
        }
        let key = CallKey(self.calls.insert(InFlight { reqno, asked: None }) as u32);
        let request = CallRequest { reqno, number: header.word as i32, args: body };
        let process = self.process.as_ref().expect("a running session has a process");
        if let Some(ask) = host.call(key, process, request) {
            self.ask(key, ask, host);
        }
    }

    fn prefork(&mut self, reqno: u64, host: &mut impl Host) -> Refused {
        if self.exec.is_some() {
            return Err((ErrorCode::InExec, "a prefork during an exec"));
        }
        let parent = self.process.clone().expect("a running session has a process");
        self.state = State::Preforking { reqno };
        self.start(KernelOp::Prefork { parent }, host);
        Ok(())
    }

    fn exec(&mut self, header: Header, body: &[u8], host: &mut impl Host) -> Refused {
        if Handshake::from_number(header.word) != Some(Handshake::Exec) {
            return Err((ErrorCode::Malformed, "a second handshake that is no exec"));
        }
        if self.exec.is_some() {
            return Err((ErrorCode::InExec, "an exec during an exec"));
        }
        let command = command(body)?;
        let stage = ExecStage::Draining { interrupted: false };
        self.exec = Some(Box::new(Exec { reqno: header.reqno, command, stage }));
        host.interrupt_calls();
        let process = self.process.clone().expect("a running session has a process");
        self.start(KernelOp::Interrupt { process }, host);
        Ok(())
    }

    /// Handles the answer to a request of a call.
    fn answered(&mut self, header: Header, body: Body<'_>, host: &mut impl Host) {
        // `body_bound` has checked the header: there is a request, and the body is no longer than
        // asked.
        let Some((key, ask)) = self.take_ask(&header) else {
            return;
        };
        let fits = match (ask, header.kind()) {
            (CopyRequest::Copyin { len, .. }, Some(Kind::Copyin)) => body.len() == len,
            // Stock clients answer a COPYINSTR with type COPYIN.
            (CopyRequest::Copyinstr { .. }, Some(Kind::Copyin | Kind::Copyinstr)) => true,
            (CopyRequest::Anonmmap { .. }, Some(Kind::Anonmmap)) => body.len() == 8,
            _ => false,
        };
        if fits {
            return host.answer(key, Ok(body));
        }
        host.answer(key, Err(()));
        let why = "an answer that does not fit what was asked";
        self.refuse(Refusal { reqno: header.reqno, code: None, why }, host);
    }

    /// Handles the client's refusal: the pointer its program gave is bad.
    fn declined(&mut self, header: Header, host: &mut impl Host) {
        if let Some((key, _)) = self.take_ask(&header) {
            host.answer(key, Err(()));
        }
    }

    fn take_ask(&mut self, header: &Header) -> Option<(CallKey, CopyRequest)> {
        let asked = self.asked(header)?;
        let (key, ask) = (asked.reqno as u32, asked.ask);
        self.calls[key as usize].asked = None;
        self.asks -= 1;
        Some((CallKey(key), ask))
    }
}

/// The outcome of a frame: `Err` ends the connection, with this answer.
type Refused = Result<(), (ErrorCode, &'static str)>;

/// Returns the command name of a handshake, without its NUL. The reference reads past the body where
/// the NUL is missing, and through a null pointer where there is no body.
fn command(body: &[u8]) -> Result<Vec<u8>, (ErrorCode, &'static str)> {
    match body.iter().position(|&byte| byte == 0) {
        Some(end) => Ok(body[..end].to_vec()),
        None => Err((ErrorCode::Malformed, "a command name without its end")),
    }
}
