//! Tests that the work of inline runs is bounded, whatever clients have built. Every call of the table is
//! made with everything it can meet made large, and the steps and locks of its inline runs are counted. A
//! call without a case here fails.

use super::super::table::{Status, table};
use super::super::testing::{Guest, Pending, kernel_with, o};
use super::super::work::MOST;
use super::super::{Embedded, Limits};
use super::streams::local;

/// The number of objects where there are many.
const MANY: usize = 1500;

/// The most steps and locks of an inline run: what it counts before it does it, and some that it counts
/// afterwards.
const STEPS: usize = 3 * MOST;
const LOCKS: usize = 1200;

/// A kernel with much of everything, and a client of it.
struct World {
    _kernel: Embedded,
    guest: Guest,
    /// The calls that sleep.
    sleepers: Vec<Pending>,
    _others: Vec<Guest>,
    made: u64,
}

impl World {
    fn new() -> World {
        let kernel = kernel_with(Limits { files_per_process: 4096, ..Limits::default() });
        let mut guest = Guest::new(&kernel);
        guest.slow = false;
        let others = (0..MANY).map(|_| guest.beside(&kernel)).collect();
        let world =
            World { _kernel: kernel, guest, sleepers: Vec::new(), _others: others, made: 0 };
        world.ok(136, &[world.guest.string("/many"), 0o777]);
        for n in 0..MANY {
            let path = world.guest.string(&format!("/many/{n:0100}"));
            world.ok(136, &[path, 0o777]);
        }
        world
    }

    fn ok(&self, number: i32, args: &[u64]) -> u64 {
        match self.guest.call(number, args) {
            Ok(value) => value as u64,
            Err(errno) => panic!("call {number}: {errno:?}"),
        }
    }

    /// Returns a path that is not in use.
    fn path(&mut self) -> String {
        self.made += 1;
        format!("/tmp/{}", self.made)
    }

    /// Makes a file with very many chunks.
    fn file(&mut self) -> (String, u64) {
        let path = self.path();
        let fd = self.guest.open(&path, o::RDWR | o::CREAT).unwrap();
        for n in 0..MANY as u64 {
            self.ok(174, &[fd, self.guest.buffer(), 1, 0, n << 16]);
        }
        (path, fd)
    }

    /// Makes a file with very many knotes.
    fn watched(&mut self) -> (String, u64) {
        let path = self.path();
        let fd = self.guest.open(&path, o::RDWR | o::CREAT).unwrap();
        let queue = self.ok(344, &[]);
        self.watch(queue, fd, 3, 0x7f);
        (path, fd)
    }

    /// Makes `queue` watch very many copies of descriptor `fd`.
    fn watch(&mut self, queue: u64, fd: u64, filter: u64, notes: u64) {
        let pairs: Vec<u64> = (0..300).map(|_| self.ok(41, &[fd])).collect();
        for copy in pairs {
            let event = [copy, filter | 1 << 32, notes, 0, 0];
            let event = event.map(u64::to_le_bytes).concat();
            self.ok(435, &[queue, self.guest.place(&event), 1, 0, 0, 0]);
        }
    }

    /// Makes a pipe with very many sleeping readers.
    fn pipe(&mut self) -> (u64, u64) {
        let (reader, writer) = self.guest.pipe();
        for _ in 0..MANY {
            self.sleep(3, &[reader, self.guest.buffer(), 1]);
        }
        (reader, writer)
    }

    fn sleep(&mut self, number: i32, args: &[u64]) {
        let mut sleeper = self.guest.start(number, args);
        assert_eq!(sleeper.run(), None, "call {number} sleeps");
        self.sleepers.push(sleeper);
    }

    /// Makes two connected local sockets.
    fn pair(&self, kind: u64) -> (u64, u64) {
        let at = self.guest.buffer() + 5000;
        self.ok(135, &[1, kind, 0, at]);
        let bytes = self.guest.get(at, 8);
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()).into();
        (word(0), word(4))
    }

    /// Returns a message that carries these descriptors.
    fn message(&self, fds: &[u64]) -> u64 {
        let mut control = [16 + 4 * fds.len() as u32, 0xffff, 1, 0].map(u32::to_le_bytes).concat();
        control.extend(fds.iter().flat_map(|&fd| (fd as u32).to_le_bytes()));
        let data = [self.guest.place(b"x"), 1].map(u64::to_le_bytes).concat();
        let words = [0, 0, self.guest.place(&data), 1, self.guest.place(&control)];
        let mut header = words.map(u64::to_le_bytes).concat();
        header.extend((control.len() as u64).to_le_bytes());
        self.guest.place(&header)
    }

    /// Makes a socket that holds very many others, in nested messages.
    fn nest(&mut self) -> (u64, u64) {
        let mut outer = self.pair(1);
        for _ in 0..8 {
            let mut inner: Vec<u64> =
                (0..99).flat_map(|_| <[u64; 2]>::from(self.pair(1))).collect();
            inner.extend([outer.0, outer.1]);
            outer = self.pair(1);
            let sent = self.message(&inner);
            self.ok(28, &[outer.0, sent, 0]);
            for fd in inner {
                let _ = self.guest.close(fd);
            }
        }
        outer
    }

    /// Makes a listener with very many connections to accept, and returns it with its name.
    fn listener(&mut self) -> (u64, Vec<u8>) {
        let name = local(&self.path());
        let fd = self.ok(394, &[1, 1, 0]);
        self.ok(104, &[fd, self.guest.place(&name), name.len() as u64]);
        self.ok(106, &[fd, 128]);
        for _ in 0..120 {
            let client = self.ok(394, &[1, 1, 0]);
            self.ok(98, &[client, self.guest.place(&name), name.len() as u64]);
        }
        (fd, name)
    }

    /// Makes a datagram socket with a full queue, to which very many others are connected.
    fn receiver(&mut self) -> (u64, Vec<u8>) {
        let name = local(&self.path());
        let fd = self.ok(394, &[1, 2, 0]);
        self.ok(104, &[fd, self.guest.place(&name), name.len() as u64]);
        for _ in 0..300 {
            let client = self.ok(394, &[1, 2, 0]);
            self.ok(98, &[client, self.guest.place(&name), name.len() as u64]);
            let _ = self.guest.write(client, b"x");
        }
        (fd, name)
    }

    /// Makes a file with very many locks, one of which is this process's.
    fn locked(&mut self) -> u64 {
        let (_, fd) = self.file();
        for n in 0..MANY as u64 {
            let lock = [2 * n, 1, 3 << 32].map(u64::to_le_bytes).concat();
            self.ok(92, &[fd, 8, self.guest.place(&lock)]);
        }
        fd
    }

    /// Returns a path of very many steps, and a symbolic link with even more.
    fn long(&mut self) -> [u64; 2] {
        let path = self.path();
        let up = format!("/many{}", "/../many".repeat(120));
        let target = self.guest.string(&up);
        self.ok(57, &[target, self.guest.string(&path)]);
        [self.guest.string(&up), self.guest.string(&path)]
    }

    /// Makes a directory as deep as a path may be long.
    fn deep(&mut self) -> u64 {
        for _ in 0..400 {
            let name = self.guest.string("d");
            let _ = self.guest.call(136, &[name, 0o777]);
            self.ok(12, &[name]);
        }
        self.guest.open(".", o::RDONLY).unwrap()
    }

    /// Returns paths of very many steps, and one of a file that is watched.
    fn paths(&mut self) -> Vec<u64> {
        let mut paths = Vec::from(self.long());
        let (watched, file) = (self.watched().0, self.file().0);
        paths.extend([watched, file].map(|path| self.guest.string(&path)));
        paths
    }

    /// Returns descriptors of large objects.
    fn descriptors(&mut self) -> Vec<u64> {
        let (reader, writer) = self.pipe();
        let directory = self.guest.open("/many", o::RDONLY).unwrap();
        let files = [self.file().1, self.watched().1, reader, writer, directory];
        let sockets = [self.nest().1, self.listener().0, self.receiver().0];
        [&files[..], &sockets].concat()
    }

    /// Makes a file that is freed with its last descriptor.
    fn unlinked(&mut self) -> u64 {
        let (path, fd) = self.file();
        self.ok(10, &[self.guest.string(&path)]);
        fd
    }

    /// Makes a kqueue with very many knotes that are ready, or have been.
    fn kqueue(&mut self) -> u64 {
        let (reader, writer) = self.guest.pipe();
        let queue = self.ok(344, &[]);
        self.watch(queue, reader, 0, 0);
        self.guest.write(writer, b"x").unwrap();
        self.guest.read(reader, 1).unwrap();
        queue
    }

    /// Returns a vector of so many buffers of one byte each.
    fn vector(&self, count: usize) -> u64 {
        let one = [self.guest.buffer(), 1].map(u64::to_le_bytes).concat();
        self.guest.place(&one.repeat(count))
    }

    /// Returns a message of so many buffers, without an address.
    fn header(&self, count: usize) -> u64 {
        let words = [0, 0, self.vector(count), count as u64, 0, 0];
        self.guest.place(&words.map(u64::to_le_bytes).concat())
    }

    /// Returns the arguments for calls of this number that meet the most. Calls that run on a worker need
    /// none. `None` for a number without a case.
    fn cases(&mut self, number: i32) -> Option<Vec<Vec<u64>>> {
        const HERE: u64 = -100i64 as u64;
        let (buffer, pid) = (self.guest.buffer(), self.guest.process.pid() as u64);
        let each = |firsts: Vec<u64>, rest: &[u64]| {
            firsts.into_iter().map(|first| [&[first], rest].concat()).collect::<Vec<_>>()
        };
        Some(match number {
            // Calls that look at nothing that clients have built.
            20 | 24 | 25 | 36 | 39 | 43 | 47 | 49 | 50 | 60 | 79 | 80 | 81 | 147 | 305 => {
                vec![vec![]]
            }
            23 | 126 | 127 | 181..=183 | 194 | 195 | 197 | 207 | 208 | 286 => vec![vec![0; 6]],
            235 | 236 | 239 | 418 | 419 | 421 | 425..=430 | 445..=447 | 477 | 482 => {
                vec![vec![0, buffer, buffer + 64, 0]]
            }
            42 | 344 | 356 | 453 | 455 => vec![vec![0, 0, 0]],
            135 => vec![vec![1, 1, 0, buffer]],
            394 => vec![vec![1, 1, 0], vec![2, 2, 0]],
            37 => vec![vec![-1i64 as u64, 0], vec![0, 0], vec![pid, 0]],
            82 => vec![vec![0, 0], vec![pid, 0]],
            96 | 100 => vec![vec![0, 0, 0], vec![1, 0, 0], vec![2, 0, 0]],
            202 => {
                let names: [&[i32]; 3] =
                    [&[1, 47, 0, 0, 680, 4000], &[1, 77, 1, 0, 120, 4000], &[1, 10]];
                let room = self.guest.place(&100_000u64.to_le_bytes());
                let name = |name: &[i32]| {
                    let bytes: Vec<u8> = name.iter().flat_map(|part| part.to_le_bytes()).collect();
                    vec![self.guest.place(&bytes), name.len() as u64, buffer, room, 0, 0]
                };
                names.into_iter().map(name).collect()
            }
            // Paths.
            5 => {
                let all = self.paths();
                [each(all.clone(), &[o::RDWR]), each(all, &[o::RDWR | o::TRUNC])].concat()
            }
            9 | 10 | 12 | 15 | 16 | 33 | 34 | 58 | 128 | 132 | 136 | 137 | 191 | 200 | 270
            | 274 | 275 | 283 | 285 | 304 | 357 | 420 | 424 | 439 | 441 | 450 => {
                each(self.paths(), &[buffer, 64])
            }
            57 => each(self.paths(), &[self.guest.string("/many/x")]),
            61 => each(self.long().into(), &[]),
            457..=464 | 466..=469 | 471 => {
                self.paths().into_iter().map(|path| vec![HERE, path, buffer, 0, 0]).collect()
            }
            470 => self.paths().into_iter().map(|path| vec![path, HERE, path]).collect(),
            296 => {
                self.deep();
                vec![vec![buffer, 4096]]
            }
            // Descriptors.
            6 => {
                let last = [self.unlinked(), self.locked(), self.kqueue()];
                each([self.descriptors(), last.into()].concat(), &[])
            }
            41 => each(self.descriptors(), &[]),
            90 | 454 => {
                let file = self.file().1;
                let over = [self.descriptors(), vec![self.unlinked(), self.kqueue()]].concat();
                over.into_iter().map(|over| vec![file, over, 0]).collect()
            }
            92 => {
                let lock = self.guest.place(&[7, 1, 3 << 32].map(u64::to_le_bytes).concat());
                vec![vec![self.locked(), 8, lock], vec![0, 3, 0], vec![3000, 10, 0]]
            }
            13 | 35 | 54 | 95 | 123 | 124 | 131 | 192 | 199 | 201 | 241 | 284 | 297 | 354 | 358
            | 416 | 423 | 440 | 472 | 479 | 480 => each(self.descriptors(), &[0, 0, 0]),
            390 => each(vec![self.guest.open("/many", o::RDONLY).unwrap()], &[buffer, 8192]),
            3 | 4 | 173 | 174 | 29 | 133 => {
                let few = each(self.descriptors(), &[buffer, 1, 0, 0, 0]);
                [few, each(self.descriptors(), &[buffer, 100_000, 0, 0, 0])].concat()
            }
            120 | 121 | 289 | 290 => {
                let (few, most) = (self.vector(64), self.vector(1024));
                let few = each(self.descriptors(), &[few, 64, 0, 0]);
                [few, each(self.descriptors(), &[most, 1024, 0, 0])].concat()
            }
            // Sockets.
            27 | 28 => {
                let (few, most) = (self.header(1), self.header(1024));
                let few = each(self.descriptors(), &[few, 0]);
                let files = self.message(&[0; 200]);
                let full = vec![vec![self.nest().0, files, 0]];
                [few, each(self.descriptors(), &[most, 0]), full].concat()
            }
            475 | 476 => {
                let messages = [self.guest.get(self.header(1024), 48), vec![0; 8]].concat();
                each(self.descriptors(), &[self.guest.place(&messages.repeat(20)), 20, 0, 0])
            }
            30 | 456 => each(vec![self.listener().0], &[0, 0, 0, 0]),
            31 | 32 | 105 | 106 | 118 | 134 => each(self.descriptors(), &[2, buffer, buffer, 0]),
            98 | 104 => {
                let (listener, receiver) = (self.listener().1, self.receiver().1);
                let mut all = Vec::new();
                for (kind, name) in [(1, listener), (2, receiver)] {
                    let fd = self.ok(394, &[1, kind, 0]);
                    all.push(vec![fd, self.guest.place(&name), name.len() as u64]);
                }
                all
            }
            // Waiting for one of many.
            209 | 437 => {
                let (reader, _) = self.pipe();
                let fds = [reader, 0x43 << 32].iter().sum::<u64>().to_le_bytes().repeat(128);
                vec![vec![self.guest.place(&fds), 128, 0, 0]]
            }
            417 | 436 => {
                let set = self.guest.place(&[0xff; 16]);
                vec![vec![128, set, set, set, self.guest.place(&[0; 16]), 0]]
            }
            435 => vec![vec![self.kqueue(), 0, 0, buffer, 100, self.guest.place(&[0; 16])]],
            _ => return None,
        })
    }

    /// Makes a call until it ends or sleeps, and returns the work of its inline runs.
    fn spent(&self, number: i32, args: &[u64]) -> [usize; 2] {
        let mut call = self.guest.start(number, args);
        if call.run().is_none() {
            let _ = call.interrupt();
        }
        call.spent
    }
}

/// Returns the number of every implemented call.
fn numbers() -> impl Iterator<Item = i32> {
    table().filter(|entry| entry.status != Status::Absent).map(|entry| entry.number)
}

#[test]
fn no_inline_call_does_more_the_more_there_is() {
    let mut broken = Vec::new();
    for number in numbers() {
        // A world for each call, as a call may destroy what it meets.
        let mut world = World::new();
        let Some(cases) = world.cases(number) else {
            broken.push(format!("call {number} has no case"));
            continue;
        };
        for args in cases {
            let [steps, locks] = world.spent(number, &args);
            if steps > STEPS || locks > LOCKS {
                broken.push(format!("call {number} {args:x?}: {steps} steps, {locks} locks"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
