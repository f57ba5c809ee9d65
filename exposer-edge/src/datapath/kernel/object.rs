//! The object with the kernel programs, as it was embedded when the edge was built.

/// Embedded bytes, aligned as an ELF reader needs them; empty where the edge was built without the object.
static EMBEDDED: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/exposer-ebpf.o"));

/// What to tell an operator when [`object`] has none.
pub const MISSING: &str = "this binary carries no eBPF object: build it with `cargo xtask build`";

/// The embedded object file: programs, maps and BTF. `None` where the edge was built by plain cargo before
/// `cargo xtask build-ebpf` ever ran; then only the userspace datapath is there.
pub fn object() -> Option<&'static [u8]> {
    (!EMBEDDED.is_empty()).then_some(EMBEDDED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_embedded_is_an_aligned_elf_file() {
        // Where there is no object, the kernel tests, which need one, fail; here only a wrong one can.
        if let Some(bytes) = object() {
            assert_eq!(&bytes[..4], b"\x7fELF");
            assert_eq!(bytes.as_ptr().align_offset(8), 0);
        }
    }
}
