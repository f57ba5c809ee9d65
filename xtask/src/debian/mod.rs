//! Debian packages, unpacked into a folder of ours and run from there: no root, nothing installed system-wide.

mod apt;
pub mod control;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

pub use control::{Package, Wanted};

use crate::command::{Cmd, note, step};
use crate::files::write_if_changed;
use crate::paths;

/// A folder into which packages are unpacked.
#[derive(Debug)]
pub struct Unpacked {
    /// The folder that stands for `/`.
    pub root: PathBuf,
}

impl Unpacked {
    /// Folders of shared libraries below the root, as a value for `LD_LIBRARY_PATH`.
    pub fn library_path(&self, more: &[PathBuf]) -> String {
        let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
        let mut dirs: Vec<_> = ["usr/lib", "lib"]
            .map(|dir| self.root.join(dir).join(&triplet))
            .into();
        dirs.extend_from_slice(more);
        dirs.iter()
            .map(|dir| dir.display().to_string())
            .collect::<Vec<_>>()
            .join(":")
    }

    /// Writes a wrapper `bin/name` that runs `program` with the libraries of this folder before the system's.
    ///
    /// # Errors
    ///
    /// When it can't be written.
    pub fn wrap(&self, bin: &Path, name: &str, program: &Path, more: &[PathBuf]) -> Result<PathBuf> {
        let wrapper = bin.join(name);
        let script = format!(
            "#!/bin/sh\nLD_LIBRARY_PATH='{}' exec '{}' \"$@\"\n",
            self.library_path(more).replace('\'', r"'\''"),
            program.display().to_string().replace('\'', r"'\''")
        );
        write_if_changed(&wrapper, script.as_bytes(), true)?;
        Ok(wrapper)
    }
}

/// The archive of this machine's apt sources, with lists fetched now.
pub struct Archive {
    apt: apt::Apt,
    installed: BTreeSet<String>,
}

/// Which packages a wish comes to, before anything of it is fetched.
pub struct Plan {
    /// The packages, sorted by name.
    pub packages: Vec<Package>,
    /// What the archive has in another version than the one that was tried.
    pub moved_on: Vec<MovedOn>,
}

/// A package that the archive has in another version than the one that was tried.
#[derive(Debug)]
pub struct MovedOn {
    /// Name of the package.
    pub name: String,
    /// The version that was tried.
    pub tried: String,
    /// The version that is there.
    pub present: String,
}

impl Archive {
    /// Fetches the archive's present lists.
    ///
    /// # Errors
    ///
    /// When this is no Debian, or the archive can't be reached.
    pub fn open() -> Result<Self> {
        Ok(Self {
            apt: apt::Apt::open(&paths::cache().join("apt"))?,
            installed: apt::installed()?,
        })
    }

    /// Finds out what `wanted` comes to on this machine.
    ///
    /// # Errors
    ///
    /// When a package is not in the archive.
    pub fn plan(&self, wanted: &[Wanted]) -> Result<Plan> {
        let mut moved_on = Vec::new();
        let packages = control::closure(wanted, &self.installed, |name, version| {
            let Some(tried) = version else {
                return self.apt.look_up(name, None);
            };
            if let Some(package) = self.apt.look_up(name, Some(tried))? {
                return Ok(Some(package));
            }
            let present = self.apt.look_up(name, None)?;
            if let Some(Package { version, .. }) = &present {
                moved_on.push(MovedOn {
                    name: name.into(),
                    tried: tried.into(),
                    present: version.clone(),
                });
            }
            Ok(present)
        })?;
        Ok(Plan { packages, moved_on })
    }

    /// Every version of a package that the sources have, the one that apt would install first.
    ///
    /// # Errors
    ///
    /// When apt itself fails.
    pub fn all_versions(&self, name: &str) -> Result<Vec<Package>> {
        self.apt.all_versions(name)
    }

    /// Downloads the packages and unpacks them into the folder `root`, which is emptied first.
    ///
    /// # Errors
    ///
    /// When a download fails its check, or the disk is full.
    pub fn unpack(&self, plan: &Plan, root: &Path) -> Result<Unpacked> {
        let megabytes = plan.packages.iter().map(|package| package.size).sum::<u64>() / 1_000_000;
        let names: Vec<_> = plan
            .packages
            .iter()
            .map(|package| package.name.as_str())
            .collect();
        let count = names.len();
        step(format_args!(
            "downloading {count} Debian packages, {megabytes} MB: {}",
            names.join(" ")
        ));
        let debs = root.with_extension("debs");
        for dir in [root, &debs] {
            if dir.exists() {
                std::fs::remove_dir_all(dir).with_context(|| format!("can't remove {}", dir.display()))?;
            }
        }
        self.apt.download(&plan.packages, &debs)?;
        step(format_args!("unpacking them into {}", root.display()));
        std::fs::create_dir_all(root)?;
        let mut files = std::fs::read_dir(&debs)?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<Vec<_>>>()?;
        files.sort();
        let total = files.len();
        for (index, file) in files.iter().enumerate() {
            note(format_args!(
                "[{}/{total}] {}",
                index + 1,
                file.file_name().unwrap_or_default().to_string_lossy()
            ));
            Cmd::new("dpkg").arg("-x").arg(file).arg(root).run()?;
        }
        std::fs::remove_dir_all(&debs)?;
        Ok(Unpacked {
            root: root.to_owned(),
        })
    }
}
