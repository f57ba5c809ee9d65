//! The file that says that a downloaded folder is complete, and what for.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Rises when what is put into such folders changes.
const LAYOUT: u32 = 1;

/// The stamp of one folder for one set of contents.
pub struct Stamp {
    file: PathBuf,
    key: String,
}

impl Stamp {
    /// The stamp of `dir` for `contents`. The folder's path is part of the key: wrappers and bpf-linker hold it, so a
    /// folder that was moved is made again.
    pub fn new(dir: &Path, contents: &[&str]) -> Self {
        let key = format!(
            "layout {LAYOUT}\n{}\n{}\n{}\n",
            dir.display(),
            std::env::consts::ARCH,
            contents.join("\n")
        );
        Self {
            file: dir.join("STAMP"),
            key,
        }
    }

    /// Whether the folder is complete, and for these contents.
    pub fn holds(&self) -> bool {
        std::fs::read_to_string(&self.file).is_ok_and(|text| text == self.key)
    }

    /// Takes the stamp away, before the folder is changed.
    ///
    /// # Errors
    ///
    /// When it can't be removed.
    pub fn clear(&self) -> Result<()> {
        match std::fs::remove_file(&self.file) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("can't remove {}", self.file.display()))
            }
            _ => Ok(()),
        }
    }

    /// Sets the stamp, after all is in the folder.
    ///
    /// # Errors
    ///
    /// When it can't be written.
    pub fn set(&self) -> Result<()> {
        std::fs::write(&self.file, &self.key).with_context(|| format!("can't write {}", self.file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_holds_for_one_folder_and_one_set_of_contents() {
        let dir = std::env::temp_dir().join(format!("xtask-stamp-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let stamp = Stamp::new(&dir, &["1", "2"]);
        assert!(!stamp.holds());
        stamp.clear().unwrap();
        stamp.set().unwrap();
        assert!(stamp.holds());
        assert!(!Stamp::new(&dir, &["1", "3"]).holds());
        assert_ne!(Stamp::new(Path::new("/elsewhere"), &["1", "2"]).key, stamp.key);
        stamp.clear().unwrap();
        assert!(!stamp.holds());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
