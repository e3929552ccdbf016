//! The program exports the hypercalls it implements, so that librump, loaded at run time, finds them
//! before librumpuser's.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for symbol in [
        "rumpuser_init",
        "rumpuser_malloc",
        "rumpuser_free",
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
