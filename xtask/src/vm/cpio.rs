//! Writing a cpio archive of the form "newc", which the kernel unpacks as its first root (its file
//! Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;
use std::io::Write;

use anyhow::{Context as _, Result};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;
/// What ends an archive.
const TRAILER: &str = "TRAILER!!!";

/// An archive in the making. Folders of what is added are added by themselves.
pub struct Archive<W> {
    out: W,
    inode: u32,
    names: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    /// An empty archive.
    pub fn new(out: W) -> Self {
        Self {
            out,
            inode: 0,
            names: BTreeSet::new(),
        }
    }

    /// Adds an empty folder, and those above it.
    ///
    /// # Errors
    ///
    /// When the archive can't be written.
    pub fn folder(&mut self, path: &str) -> Result<()> {
        let path = path.trim_matches('/');
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for end in ends {
            let Some(folder) = path.get(..end).filter(|folder| !folder.is_empty()) else {
                continue;
            };
            if self.names.insert(folder.to_owned()) {
                self.entry(folder, DIRECTORY, &[])?;
            }
        }
        Ok(())
    }

    /// Adds a file that everybody may read and execute. A path that is there already is left as it is.
    ///
    /// # Errors
    ///
    /// When the archive can't be written, or the file is larger than the format allows (4 GiB).
    pub fn file(&mut self, path: &str, content: &[u8]) -> Result<()> {
        self.add(path, PROGRAM, content)
    }

    /// Adds a symbolic link. A path that is there already is left as it is.
    ///
    /// # Errors
    ///
    /// When the archive can't be written.
    pub fn link(&mut self, path: &str, target: &str) -> Result<()> {
        self.add(path, LINK, target.as_bytes())
    }

    /// Ends the archive and gives its writer back.
    ///
    /// # Errors
    ///
    /// When the archive can't be written.
    pub fn finish(mut self) -> Result<W> {
        self.entry(TRAILER, 0, &[])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn add(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        let path = path.trim_matches('/');
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.folder(folder)?;
        }
        if self.names.insert(path.to_owned()) {
            self.entry(path, mode, content)?;
        }
        Ok(())
    }

    /// Thirteen numbers of eight hexadecimal digits after the magic; name and content each padded to four bytes.
    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.inode += 1;
        let size =
            u32::try_from(content.len()).with_context(|| format!("{name} is too large for an archive"))?;
        let name_size = u32::try_from(name.len())? + 1;
        let (user, group, links, changed, device) = (0, 0, 1, 0, 0);
        let fields = [
            self.inode, mode, user, group, links, changed, size, device, device, device, device, name_size, 0,
        ];
        let mut head = String::from("070701");
        for field in fields {
            head.push_str(&format!("{field:08X}"));
        }
        head.push_str(name);
        head.push('\0');
        self.padded(head.as_bytes())?;
        self.padded(content)
    }

    fn padded(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes)?;
        let rest = bytes.len().next_multiple_of(4) - bytes.len();
        self.out.write_all([0; 4].get(..rest).unwrap_or_default())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_folders_before_their_files_and_is_padded() {
        let mut archive = Archive::new(Vec::new());
        archive.file("/a/b/c", b"hello").unwrap();
        archive.file("a/b/c", b"again").unwrap();
        archive.link("a/d", "b/c").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let names: Vec<_> = text
            .split("070701")
            .skip(1)
            .map(|entry| entry.get(104..).unwrap().split('\0').next().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["a", "a/b", "a/b/c", "a/d", TRAILER]);
        let head = text.split("070701").nth(3).unwrap();
        assert_eq!(&head[8..16], "000081ED", "a file with mode 755");
        assert_eq!(&head[48..56], "00000005", "its size");
        assert!(text.contains("hello\0\0\0") && !text.contains("again"));
    }
}
