//! A way out of a call into C from deep inside of it, as `setjmp(3)` and `longjmp(3)` give to C.
//!
//! NetBSD's kernel has no way to end some of its calls early: it asks again whatever a hypercall answers.
//! But a hypercall on the stack of such a call can leave the call: [`call_escapable`] calls a function,
//! and [`escape`], further down the same stack, makes [`call_escapable`] return at once. The frames in
//! between are forgotten, as if they had never been.
//!
//! `setjmp` itself is unusable in Rust: it returns twice to the function that calls it, which the
//! compiler does not know. Here, both returns are those of a function in assembly, and each call of it
//! returns once.
//!
//! These conditions must hold; each says why it does:
//! - Escape and call are on one thread, and the call has not returned: [`Context`] stays on its thread,
//!   and forgets the stack when the call returns.
//! - The frames in between are of C, or of Rust functions that have nothing to drop: the code that
//!   escapes knows which calls lead there, and keeps no guard, lock or allocation alive across
//!   [`escape`].
//! - Those frames hold nothing in the kernel, or it has been given back: the code that escapes knows
//!   that, too.
//! - No shadow stack watches returns. The loader turns that on only if the whole program asks for it;
//!   Rust's programs do not.
//!
//! Source: System V ABI, AMD64 supplement, 3.2.1 and 3.2.3: registers that belong to the caller.

use std::cell::Cell;
use std::ffi::c_void;
use std::ptr;

/// True if calls can be left on this machine, because there is assembly for it.
pub const IS_POSSIBLE: bool = cfg!(target_arch = "x86_64");

/// The place to return to. A context serves one call after the other, on the thread that made it.
#[derive(Debug)]
pub struct Context {
    /// The stack with the caller's registers on top; null while there is no call.
    stack: Cell<*mut c_void>,
}

impl Context {
    /// Creates the context of a call that has not begun.
    pub const fn new() -> Context {
        Context { stack: Cell::new(ptr::null_mut()) }
    }

    /// Returns `true` if there is a call to escape from. There never is on a machine without the
    /// assembly.
    pub fn is_open(&self) -> bool {
        !self.stack.get().is_null()
    }
}

impl Default for Context {
    fn default() -> Context {
        Context::new()
    }
}

/// Calls `f` with `arg`. Returns `true` if `f` returned, and `false` if [`escape`] left it.
///
/// # Safety
///
/// `f` may be called with `arg`, and does not unwind. If `f` is left, the conditions of the module hold.
/// `context` is not in use for another call.
pub unsafe fn call_escapable<A>(
    f: unsafe extern "C" fn(*mut A),
    arg: *mut A,
    context: &Context,
) -> bool {
    // SAFETY: a pointer to data is passed as one to any other type is; the caller's promise for the rest.
    let f = unsafe {
        std::mem::transmute::<unsafe extern "C" fn(*mut A), unsafe extern "C" fn(*mut c_void)>(f)
    };
    // SAFETY: the caller's promise; the stack is noted where there is room for it.
    let left = unsafe { machine::call(f, arg.cast(), context.stack.as_ptr()) };
    context.stack.set(ptr::null_mut());
    left == 0
}

/// Makes the [`call_escapable`] of this context return `false`, at once.
///
/// # Safety
///
/// The call is on this thread and has not returned, and the frames in between may be forgotten: see the
/// module.
///
/// # Panics
///
/// Panics if there is no such call, or no way out of it on this machine.
pub unsafe fn escape(context: *const Context) -> ! {
    // SAFETY: the caller's promise: the call borrows the context.
    let stack = unsafe { (*context).stack.get() };
    assert!(!stack.is_null(), "nothing to escape from");
    // SAFETY: the stack of a call that has not returned, on the same thread.
    unsafe { machine::escape(stack) }
}

#[cfg(target_arch = "x86_64")]
mod machine {
    use std::arch::naked_asm;
    use std::ffi::{c_int, c_void};

    /// Pushes the registers that belong to the caller, stores the stack pointer in `stack`, and calls
    /// `f(arg)`. Returns 0.
    #[unsafe(naked)]
    pub unsafe extern "C" fn call(
        f: unsafe extern "C" fn(*mut c_void),
        arg: *mut c_void,
        stack: *mut *mut c_void,
    ) -> c_int {
        naked_asm!(
            "push rbp",
            "mov rbp, rsp",
            "push rbx",
            "push r12",
            "push r13",
            "push r14",
            "push r15",
            // With the return address, there are seven words now. An eighth aligns the stack, and has
            // room for the control words of both floating point units.
            "sub rsp, 8",
            "stmxcsr dword ptr [rsp]",
            "fnstcw word ptr [rsp + 4]",
            "mov qword ptr [rdx], rsp",
            "mov rax, rdi",
            "mov rdi, rsi",
            "call rax",
            "xor eax, eax",
            "add rsp, 8",
            "pop r15",
            "pop r14",
            "pop r13",
            "pop r12",
            "pop rbx",
            "pop rbp",
            "ret",
        )
    }

    /// Restores the registers from the stack that [`call`] stored, and returns from [`call`] with 1.
    #[unsafe(naked)]
    pub unsafe extern "C" fn escape(stack: *mut c_void) -> ! {
        naked_asm!(
            "mov rsp, rdi",
            "ldmxcsr dword ptr [rsp]",
            "fldcw word ptr [rsp + 4]",
            "cld",
            "mov eax, 1",
            "add rsp, 8",
            "pop r15",
            "pop r14",
            "pop r13",
            "pop r12",
            "pop rbx",
            "pop rbp",
            "ret",
        )
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod machine {
    use std::ffi::{c_int, c_void};

    /// Calls `f(arg)`, and leaves no way to escape. Returns 0.
    pub unsafe fn call(
        f: unsafe extern "C" fn(*mut c_void),
        arg: *mut c_void,
        _stack: *mut *mut c_void,
    ) -> c_int {
        // SAFETY: the caller's promise.
        unsafe { f(arg) };
        0
    }

    pub unsafe fn escape(_stack: *mut c_void) -> ! {
        unreachable!("no stack is ever noted")
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use std::hint::black_box;

    struct Dive {
        context: Context,
        depth: u32,
        /// True if the dive escapes from the bottom; otherwise it returns.
        escapes: bool,
        reached: u32,
    }

    /// Goes down with much on the stack and in registers, then comes back one way or the other.
    unsafe extern "C" fn dive(arg: *mut Dive) {
        // SAFETY: each test passes a value of its own, and nobody else has it.
        unsafe { go_down(arg, black_box([1.5; 64]), 0) };
    }

    #[inline(never)]
    unsafe fn go_down(arg: *mut Dive, weight: [f64; 64], at: u32) -> f64 {
        // SAFETY: as above; nothing in these frames needs a drop.
        unsafe {
            (*arg).reached = at;
            if at < (*arg).depth {
                let deeper = go_down(arg, black_box(weight).map(|each| each + 1.0), at + 1);
                return deeper + weight[at as usize % 64];
            }
            if (*arg).escapes {
                escape(&raw const (*arg).context);
            }
        }
        weight[0]
    }

    fn run(depth: u32, escapes: bool) -> (bool, u32) {
        let mut dive_of = Dive { context: Context::new(), depth, escapes, reached: 0 };
        let context = &raw const dive_of.context;
        // SAFETY: `dive` takes what it is given, and the frames that it may leave have no drops.
        let returned = unsafe { call_escapable(dive, &raw mut dive_of, &*context) };
        assert!(!dive_of.context.is_open(), "the stack is forgotten");
        (returned, dive_of.reached)
    }

    #[test]
    fn a_call_that_returns_has_returned() {
        assert_eq!(run(0, false), (true, 0));
        assert_eq!(run(50, false), (true, 50));
    }

    #[test]
    fn a_call_that_is_left_has_not() {
        assert_eq!(run(0, true), (false, 0));
        assert_eq!(run(50, true), (false, 50));
    }

    /// The values that the compiler keeps in registers across the call are the same after the call.
    #[test]
    fn what_the_caller_keeps_survives_an_escape() {
        for round in 0..1000u64 {
            let kept: [u64; 8] = std::array::from_fn(|at| black_box(round * 31 + at as u64));
            let halves: [f64; 4] =
                std::array::from_fn(|at| black_box(round as f64 + at as f64 / 2.0));
            let (returned, reached) = run((round % 40) as u32, !round.is_multiple_of(3));
            assert_eq!((returned, u64::from(reached)), (round.is_multiple_of(3), round % 40));
            assert_eq!(kept, std::array::from_fn(|at| round * 31 + at as u64));
            assert_eq!(halves, std::array::from_fn(|at| round as f64 + at as f64 / 2.0));
        }
    }

    #[test]
    fn calls_may_be_inside_each_other() {
        unsafe extern "C" fn outer(arg: *mut Dive) {
            assert_eq!(run(20, true), (false, 20));
            // SAFETY: as in `run`; there is nothing to drop here either.
            unsafe { dive(arg) };
        }
        let mut dive_of = Dive { context: Context::new(), depth: 5, escapes: true, reached: 0 };
        let context = &raw const dive_of.context;
        // SAFETY: as in `run`.
        assert!(!unsafe { call_escapable(outer, &raw mut dive_of, &*context) });
        assert_eq!(dive_of.reached, 5);
    }

    #[test]
    #[should_panic(expected = "nothing to escape from")]
    fn there_is_no_escape_from_what_is_over() {
        let context = Context::new();
        // SAFETY: the function panics before it goes anywhere.
        unsafe { escape(&raw const context) };
    }
}
