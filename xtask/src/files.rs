//! Files: programs on the search path, and writing only what has changed.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Where `name` is: on PATH, else in a folder that a person who is not root seldom has there.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| is_executable(file))
}

/// Whether `file` is a file that somebody may execute.
pub fn is_executable(file: &Path) -> bool {
    file.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Writes `content` to `file` only if it differs, and makes it executable if told so. Returns whether it was written.
///
/// # Errors
///
/// When the file can't be written.
pub fn write_if_changed(file: &Path, content: &[u8], executable: bool) -> Result<bool> {
    if std::fs::read(file).is_ok_and(|old| old == content) {
        return Ok(false);
    }
    if let Some(parent) = file.parent() {
        std::fs::create_dir_all(parent)
            .with_context(|| format!("can't make the folder {}", parent.display()))?;
    }
    // Written beside and renamed: whoever reads at the same time sees the old or the new, never a half.
    let beside = file.with_extension(format!("tmp{}", std::process::id()));
    std::fs::write(&beside, content).with_context(|| format!("can't write {}", beside.display()))?;
    if executable {
        std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o755))?;
    }
    std::fs::rename(&beside, file).with_context(|| format!("can't write {}", file.display()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unchanged_file_is_not_touched() {
        let dir = std::env::temp_dir().join(format!("xtask-write-{}", std::process::id()));
        let file = dir.join("f");
        assert!(write_if_changed(&file, b"1", true).unwrap());
        assert!(is_executable(&file));
        let before = file.metadata().unwrap().modified().unwrap();
        assert!(!write_if_changed(&file, b"1", true).unwrap());
        assert_eq!(before, file.metadata().unwrap().modified().unwrap());
        assert!(write_if_changed(&file, b"2", false).unwrap());
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn programs_are_found_where_they_may_be_executed() {
        assert!(find_program("sh").is_some_and(|file| file.is_absolute()));
        assert_eq!(find_program("no-such-program-here"), None);
        assert!(!is_executable(Path::new("/etc/passwd")) && !is_executable(Path::new("/bin")));
    }
}
