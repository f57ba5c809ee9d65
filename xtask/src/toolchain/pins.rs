//! The one table of versions with which the kernel programs were built and tested.

use anyhow::{Result, bail};

/// Debian's source package of the compiler: `rustc-web` and its siblings (Debian 12, security archive).
pub const DEBIAN_RUST: &str = "1.96.0+dfsg1-1~deb12u2";
/// Debian's source package of LLVM: `libllvm22` and its siblings (Debian 12, security archive).
pub const DEBIAN_LLVM: &str = "1:22.1.8-1~deb12u1";
/// The linker that turns LLVM bitcode into a BPF object with BTF.
pub const BPF_LINKER: &str = "0.13.0";
/// LLVM majors that this version of the linker can be built with: its cargo features `llvm-NN`.
pub const BPF_LINKER_LLVM: &[u32] = &[21, 22, 23];
/// The oldest compiler that builds the kernel programs: rust-version of the workspace.
pub const OLDEST_RUSTC: (u32, u32) = (1, 95);

/// What a compiler says of itself in `rustc -vV`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RustcVersion {
    /// Release, as `1.96.0`.
    pub release: String,
    /// LLVM, as `22.1.8`.
    pub llvm: String,
}

impl RustcVersion {
    /// Reads the output of `rustc -vV`.
    pub fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name))
                .map(|value| value.trim().to_owned())
        };
        Some(Self {
            release: field("release:")?,
            llvm: field("LLVM version:")?,
        })
    }

    /// LLVM's major version.
    pub fn llvm_major(&self) -> Option<u32> {
        self.llvm.split('.').next()?.parse().ok()
    }

    /// Checks that the compiler is new enough.
    ///
    /// # Errors
    ///
    /// With the version that is needed.
    pub fn check(&self) -> Result<()> {
        let mut numbers = self.release.split('.').map(|part| part.parse::<u32>().ok());
        let have = numbers.next().flatten().zip(numbers.next().flatten());
        let (major, minor) = OLDEST_RUSTC;
        if have.is_none_or(|have| have < OLDEST_RUSTC) {
            bail!(
                "rustc {} is too old: {major}.{minor} or later is needed",
                self.release
            );
        }
        Ok(())
    }
}

/// The LLVM major of a `libllvmNN` package name.
pub fn llvm_major_of_package(name: &str) -> Option<u32> {
    name.strip_prefix("libllvm")?.parse().ok()
}

/// Finds the LLVM major inside a bpf-linker's bytes: the shared library that it needs (`libLLVM.so.22.1`), or the name
/// that a statically linked LLVM gives itself in bitcode (`LLVM22.1.8`).
pub fn llvm_major_in_binary(bytes: &[u8]) -> Option<u32> {
    // "libLLVM-22.so" is how older releases name the library.
    ["libLLVM.so.", "libLLVM-", "LLVM"].iter().find_map(|prefix| {
        let mut rest = bytes;
        while let Some(at) = find(rest, prefix.as_bytes()) {
            rest = rest.get(at + prefix.len()..)?;
            let digits: String = rest
                .iter()
                .take(3)
                .take_while(|b| b.is_ascii_digit())
                .map(|b| char::from(*b))
                .collect();
            if digits.len() == 2 && rest.get(2) == Some(&b'.') {
                return digits.parse().ok();
            }
        }
        None
    })
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERBOSE: &str = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\nbinary: rustc\n\
                           host: x86_64-unknown-linux-gnu\nrelease: 1.96.0\nLLVM version: 22.1.8\n";

    #[test]
    fn the_compilers_own_words_are_read() {
        let version = RustcVersion::parse(VERBOSE).unwrap();
        assert_eq!(
            (version.release.as_str(), version.llvm_major()),
            ("1.96.0", Some(22))
        );
        version.check().unwrap();
        assert_eq!(RustcVersion::parse("rustc 1.96.0\n"), None);
    }

    #[test]
    fn an_old_or_odd_compiler_is_refused() {
        for release in ["1.94.1", "0.99.0", "one", "1"] {
            let version = RustcVersion {
                release: release.to_owned(),
                llvm: "22.1".to_owned(),
            };
            let text = version.check().unwrap_err().to_string();
            assert!(text.contains(release) && text.contains("1.95 or later"), "{text}");
        }
        let nightly = RustcVersion {
            release: "1.97.0-nightly".to_owned(),
            llvm: "23.0".to_owned(),
        };
        nightly.check().unwrap();
    }

    #[test]
    fn llvm_majors_are_found() {
        assert_eq!(llvm_major_of_package("libllvm22"), Some(22));
        assert_eq!(llvm_major_of_package("libllvm-dev"), None);
        assert_eq!(llvm_major_in_binary(b"xx\0libLLVM.so.22.1\0yy"), Some(22));
        assert_eq!(llvm_major_in_binary(b"\0LLVM error\0LLVM21.1.0\0"), Some(21));
        assert_eq!(llvm_major_in_binary(b"\0libLLVM-20.so\0"), Some(20));
        assert_eq!(llvm_major_in_binary(b"no such thing LLVM2"), None);
    }

    #[test]
    fn the_pins_agree_with_each_other() {
        let major: u32 = DEBIAN_LLVM.split([':', '.']).nth(1).unwrap().parse().unwrap();
        assert!(BPF_LINKER_LLVM.contains(&major));
        let rust = RustcVersion {
            release: DEBIAN_RUST.split('+').next().unwrap().to_owned(),
            llvm: String::new(),
        };
        rust.check().unwrap();
    }
}
