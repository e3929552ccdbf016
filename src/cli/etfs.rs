//! `serve --etfs`: files of the host for the embedded kernel.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use super::Failure;
use embedded::{Embedded, Etfs, Why};

/// The files and directories to copy into the kernel.
#[derive(Args)]
pub struct Mounts {
    /// For the embedded kernel: the host's file or directory HOSTPATH as KEY, an absolute path in the
    /// kernel, as it is when the server starts; clients may only read it, or with `,copy` behind they
    /// may change the copy. Whoever the server runs as must be able to read it. May be given again.
    #[arg(long, value_name = "KEY=HOSTPATH[,copy]",
        value_parser = OsStringValueParser::new().try_map(parse))]
    etfs: Vec<Etfs>,
}

impl Mounts {
    /// Copies the files into the kernel.
    pub fn load(&self, kernel: &Embedded) -> Result<(), Failure> {
        kernel.etfs(&self.etfs).map_err(|error| {
            let hint = match error.why {
                Why::Bytes => "; raise --bytes-in-all, or leave something out",
                Why::Inodes => "; raise --inodes, or leave something out",
                Why::Exists => "; choose another key",
                _ => "",
            };
            format!("--etfs: {error}{hint}").into()
        })
    }
}

/// Parses `KEY=HOSTPATH[,copy|,ro]`.
fn parse(text: OsString) -> Result<Etfs, String> {
    let mut parts = text.as_bytes().splitn(2, |&byte| byte == b'=');
    let (Some(key), Some(host)) = (parts.next(), parts.next()) else {
        return Err("there is no `=` between the kernel's path and the host's".into());
    };
    let (host, writable) = match (host.strip_suffix(b",copy"), host.strip_suffix(b",ro")) {
        (Some(host), _) => (host, true),
        (_, Some(host)) => (host, false),
        _ => (host, false),
    };
    if !key.starts_with(b"/") {
        return Err("the kernel's path does not begin with /".into());
    }
    if host.is_empty() {
        return Err("there is no path of the host".into());
    }
    Ok(Etfs { key: key.to_vec(), hostpath: OsStr::from_bytes(host).into(), writable })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_understood_or_refused() {
        let etfs = |key: &str, host: &str, writable| {
            Ok(Etfs { key: key.into(), hostpath: host.into(), writable })
        };
        let parse = |text: &str| super::parse(text.into());
        assert_eq!(parse("/data=/srv/data"), etfs("/data", "/srv/data", false));
        assert_eq!(parse("/a/b=c=d,e"), etfs("/a/b", "c=d,e", false));
        assert_eq!(parse("/a=b,copy"), etfs("/a", "b", true));
        assert_eq!(parse("/a=b,copy,ro"), etfs("/a", "b,copy", false));
        for bad in ["/data", "data=/srv", "=/srv", "/data=", "/data=,copy"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
