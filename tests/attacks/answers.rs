//! Attacks that answer the server's requests wrongly, in every way.

use rumpsp::wire::{Class, HEADER_LEN, Kind};

use crate::harness::{Attack, Fate, Group, Held, asked, attack, end_of_call, hold, meets, step};
use crate::support::*;
use crate::target::Target;

pub const GROUP: Group = Group { name: "answers", attacks: &ATTACKS };

const ATTACKS: [Attack; 17] = [
    attack("a copyin answered too short", short_copyin),
    attack("a copyin answered too long", long_copyin),
    attack("a copyin answered as something else", copyin_of_another_type),
    attack("a copyin answered with a length beyond all memory", huge_answer),
    attack("a string without its end", endless_string),
    attack("a string answered empty", empty_string),
    attack("a string with its end in the middle", string_in_string),
    attack("a string answered as something else", string_of_another_type),
    attack("memory answered with the wrong length", memory_of_wrong_length),
    attack("memory at addresses that are none", memory_nowhere),
    attack("an answer as a request", answer_as_request),
    attack("an answer given twice", twice),
    attack("the answer of another client", answer_of_another),
    attack("the answer of the next ask", answer_of_the_next),
    attack("answers at random", guesses),
    attack("a refusal with a body", refusal_with_body),
    attack("everything refused", all_refused),
];

/// Returns a client with a call, of request number 9, that waits for its bytes; and the request's
/// number.
fn copyin(target: &Target) -> (FrameClient, u64) {
    let mut client = FrameClient::guest(target);
    let [_, writer] = client.pipe();
    client.send(&target.asks_bytes(9, writer, 8));
    let ask = asked(&mut client);
    (client, ask)
}

fn copyinstr(target: &Target) -> (FrameClient, u64) {
    let mut client = FrameClient::guest(target);
    client.send(&target.asks_string(9));
    let ask = asked(&mut client);
    (client, ask)
}

fn anonmmap(target: &Target) -> Option<(FrameClient, u64)> {
    let call = target.asks_memory(9)?;
    let mut client = FrameClient::guest(target);
    client.send(&call);
    let ask = asked(&mut client);
    Some((client, ask))
}

fn short_copyin(target: &Target) -> Held {
    for len in 0..8 {
        let (client, ask) = copyin(target);
        let bytes = response(Kind::Copyin, ask, &[1; 8][..len]);
        meets(client, &bytes, Fate::End, format!("{len} bytes of 8"));
    }
    hold(())
}

fn long_copyin(target: &Target) -> Held {
    for len in [9, 16, 4096, 1 << 20] {
        step(format!("{len} bytes of 8"));
        let (mut client, ask) = copyin(target);
        client.try_send(&response(Kind::Copyin, ask, &vec![1; len]));
        client.half_close();
    }
    hold(())
}

fn copyin_of_another_type(target: &Target) -> Held {
    for kind in [0, 1, 3, 4, 5, 6, 7, 8, 9, 0xffff] {
        let (client, ask) = copyin(target);
        let bytes = frame(1, kind, 0, ask, &[0; 8]);
        meets(client, &bytes, Fate::End, format!("type {kind}"));
    }
    hold(())
}

fn huge_answer(target: &Target) -> Held {
    for len in [0, 1, 23, 1 << 20, 1 << 40, i64::MAX as u64, u64::MAX] {
        for class in [Class::Response, Class::Error] {
            step(format!("{len} bytes, {class:?}"));
            let (mut client, ask) = copyin(target);
            client.send(&claiming(len, class.number(), Kind::Copyin.number(), 0, ask, &[]));
            match client.hear_or_end() {
                None => {}
                Some(Said::Refused { .. }) if class == Class::Error => client.expect_end(),
                Some(said) => panic!("expected a hang-up, not {said:?}"),
            }
            let (client, ask) = copyinstr(target);
            let bytes = claiming(len.max(1 << 12), 1, Kind::Copyin.number(), 0, ask, &[]);
            meets(client, &bytes, Fate::End, format!("a string of {len} bytes"));
        }
    }
    hold(())
}

/// Answers with a bad string, which must be an error of the call or of the client, however the server
/// reads it.
fn bad_string(target: &Target, text: &[u8]) {
    step(format!("{} bytes", text.len()));
    let (mut client, ask) = copyinstr(target);
    client.send(&response(Kind::Copyin, ask, text));
    match client.hear_or_end() {
        None | Some(Said::Result { reqno: 9, error: 1.., .. }) => {}
        said => panic!("expected an error or the end, not {said:?}"),
    }
}

fn endless_string(target: &Target) -> Held {
    for len in [1, 2, 100, 1023, 1024] {
        bad_string(target, &vec![b'/'; len]);
    }
    hold(())
}

fn empty_string(target: &Target) -> Held {
    bad_string(target, b"");
    hold(())
}

/// The string must end at the first NUL, or be refused; bytes behind the NUL must reach nobody.
fn string_in_string(target: &Target) -> Held {
    let clients: Vec<FrameClient> = [&b"/\0/\0"[..], b"\0\0\0\0", b"/no/such\0file"]
        .into_iter()
        .map(|text| {
            step(format!("{text:?}"));
            let (mut client, ask) = copyinstr(target);
            client.send(&response(Kind::Copyin, ask, text));
            loop {
                match client.hear_or_end() {
                    None | Some(Said::Result { reqno: 9, .. }) => return client,
                    Some(Said::Copyout { bytes, .. }) => {
                        let end = text.iter().position(|&byte| byte == 0).expect("a NUL");
                        assert_eq!(bytes, text[..=end], "what is echoed of {text:?}");
                    }
                    Some(said) => panic!("expected the end of the call, not {said:?}"),
                }
            }
        })
        .collect();
    hold(clients)
}

fn string_of_another_type(target: &Target) -> Held {
    for kind in [0, 1, 4, 5, 6, 7, 8, 9, 0xffff] {
        let (client, ask) = copyinstr(target);
        meets(client, &frame(1, kind, 0, ask, b"/\0"), Fate::End, format!("type {kind}"));
    }
    hold(())
}

fn memory_of_wrong_length(target: &Target) -> Held {
    for len in [0, 1, 7, 9, 16, 4096] {
        let (client, ask) = anonmmap(target)?;
        let bytes = response(Kind::Anonmmap, ask, &vec![0; len]);
        meets(client, &bytes, Fate::End, format!("{len} bytes"));
    }
    let (client, ask) = anonmmap(target)?;
    meets(client, &response(Kind::Copyin, ask, &[0; 8]), Fate::End, "as a copyin");
    hold(())
}

/// The addresses are the client's own: the server has nothing there.
fn memory_nowhere(target: &Target) -> Held {
    let mut client = FrameClient::guest(target);
    for addr in [0, 1, 0x1000, 1 << 47, 1 << 63, u64::MAX] {
        step(format!("address {addr:#x}"));
        client.send(&target.asks_memory(9)?);
        let ask = asked(&mut client);
        client.send(&response(Kind::Anonmmap, ask, &u64::to_le_bytes(addr)));
        let error = end_of_call(&mut client, 9);
        assert_eq!(error != 0, addr == 0, "memory at {addr:#x}: errno {error}");
        client.getpid();
    }
    hold(client)
}

fn answer_as_request(target: &Target) -> Held {
    let (mut client, ask) = copyin(target);
    client.send(&frame(0, Kind::Copyin.number(), 0, ask, &[0; 8]));
    client.expect(Said::refused(ask, rumpsp::wire::ErrorCode::Malformed));
    // A frame of another class is no answer either; the right answer still is.
    client.send(&frame(3, Kind::Copyin.number(), 0, ask, &[0; 8]));
    client.expect(Said::refused(ask, rumpsp::wire::ErrorCode::Malformed));
    client.send(&response(Kind::Copyin, ask, &[0; 8]));
    client.expect(Said::ok(9, 8));
    hold(client)
}

fn twice(target: &Target) -> Held {
    let (mut client, ask) = copyin(target);
    client.send(&response(Kind::Copyin, ask, &[0; 8]));
    client.expect(Said::ok(9, 8));
    meets(client, &response(Kind::Copyin, ask, &[0; 8]), Fate::End, "after the call");
    let (mut client, ask) = copyin(target);
    client.try_send(&response(Kind::Copyin, ask, &[0; 8]).repeat(50));
    client.expect_end_after_anything();
    hold(())
}

fn answer_of_another(target: &Target) -> Held {
    let (mut victim, ask) = copyin(target);
    let stolen = response(Kind::Copyin, ask, b"stolen!!");
    meets(FrameClient::guest(target), &stolen, Fate::End, "from a bystander");
    meets(FrameClient::connected(target), &stolen, Fate::End, "from nobody");
    // Only the victim's own answer counts.
    victim.send(&response(Kind::Copyin, ask, b"its own!"));
    victim.expect(Said::ok(9, 8));
    hold(victim)
}

fn answer_of_the_next(target: &Target) -> Held {
    for other in [1, 1 << 31, 1 << 32, 1 << 63, u64::MAX] {
        let (client, ask) = copyin(target);
        let bytes = response(Kind::Copyin, ask.wrapping_add(other), &[0; 8]);
        meets(client, &bytes, Fate::End, format!("{other:#x} further"));
    }
    hold(())
}

fn guesses(target: &Target) -> Held {
    for reqno in 0..100_u64 {
        let (client, ask) = copyin(target);
        let guess = reqno.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 << 60;
        assert_ne!(guess, ask, "a good guess");
        meets(client, &response(Kind::Copyin, guess, &[0; 8]), Fate::End, format!("{guess:#x}"));
    }
    hold(())
}

/// A refusal with a body as long as the answer asked for is accepted; one with a longer body is not.
fn refusal_with_body(target: &Target) -> Held {
    let (mut client, ask) = copyin(target);
    client.send(&frame(2, Kind::Copyin.number(), 7, ask, &[0; 8]));
    assert_ne!(end_of_call(&mut client, 9), 0, "a write from nowhere");
    step("longer than what was asked for");
    let (mut liar, ask) = copyin(target);
    let len = (HEADER_LEN + 9) as u64;
    liar.send(&claiming(len, 2, Kind::Copyin.number(), 7, ask, &[]));
    match liar.hear_or_end() {
        None | Some(Said::Refused { .. }) => {}
        said => panic!("expected an error or the end, not {said:?}"),
    }
    hold((client, liar))
}

fn all_refused(target: &Target) -> Held {
    let mut client = FrameClient::guest(target);
    let [_, writer] = client.pipe();
    for _ in 0..50 {
        let calls = [Some(target.asks_bytes(9, writer, 3000)), Some(target.asks_string(9))];
        for call in calls.into_iter().chain([target.asks_memory(9)]).flatten() {
            client.send(&call);
            assert_ne!(end_of_call(&mut client, 9), 0, "a call whose memory is refused");
        }
    }
    hold(client)
}
