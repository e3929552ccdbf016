//! The program exports the functions that it has in place of librumpuser's and librump's: what is loaded
//! at run time finds these first.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for symbol in [
        "rumpuser_init",
        "rumpuser_getparam",
        "rumpuser_kill",
        "rumpuser_putchar",
        "rumpuser_exit",
        "rumpuser_cv_wait_nowrap",
        "rumpuser_malloc",
        "rumpuser_free",
        "rumpuser_clock_sleep",
        "rumpns_tsleep",
        "rumpns_mtsleep",
        "rumpns_cv_wait",
        "rumpns_cv_wait_sig",
        "rumpns_cv_timedwait",
        "rumpns_cv_timedwait_sig",
        "rumpns_sleepq_block",
        "rumpns_callout_halt",
        "rumpns_fd_getfile",
        "rumpuser_sp_init",
        "rumpuser_sp_fini",
        "rumpuser_sp_copyin",
        "rumpuser_sp_copyinstr",
        "rumpuser_sp_copyout",
        "rumpuser_sp_copyoutstr",
        "rumpuser_sp_anonmmap",
        "rumpuser_sp_raise",
    ] {
        // Undefined at first, so that the linker takes it from the library at all.
        println!("cargo:rustc-link-arg-bins=-Wl,--undefined={symbol}");
        println!("cargo:rustc-link-arg-bins=-Wl,--export-dynamic-symbol={symbol}");
    }
}
