//! Debian's kernels: found in this machine's apt sources, unpacked below the cache, never installed.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::command::{note, step};
use crate::debian::{Archive, Package, Wanted};
use crate::paths;
use crate::stamp::Stamp;

/// A kernel that is ready to boot.
#[derive(Debug)]
pub struct Kernel {
    /// Its line, as `6.1`.
    pub line: String,
    /// The compressed image.
    pub image: PathBuf,
    /// `lib/modules/VERSION`.
    pub modules: PathBuf,
}

/// The kernel of the line `line`, as `6.1`: from the cache, else from Debian.
///
/// # Errors
///
/// When the sources have none: the text says which to add.
pub fn provide(line: &str) -> Result<Kernel> {
    let dir = paths::cache().join("vm").join(format!("kernel-{line}"));
    let _lock = paths::lock(&dir)?;
    let stamp = Stamp::new(&dir, &[line]);
    let root = dir.join("root");
    if !stamp.holds() {
        step(format_args!(
            "providing Debian's kernel {line} in {} (once, 110 MB; nothing is installed)",
            dir.display()
        ));
        let archive = Archive::open()?;
        let package = find(&archive, line)?;
        let wanted = Wanted::alone(&package.name).pinned(&package.version);
        let plan = archive.plan(&[wanted])?;
        stamp.clear()?;
        archive.unpack(&plan, &root)?;
        stamp.set()?;
    }
    ready(line, &root).with_context(|| format!("{} is damaged; remove it and run this again", dir.display()))
}

/// The names under which Debian has the newest kernel of a line: its own where the line is not the release's, and the
/// release's, of which backports may have another.
fn find(archive: &Archive, line: &str) -> Result<Package> {
    let arch = architecture()?;
    let metas = [
        format!("linux-image-{line}-cloud-{arch}"),
        format!("linux-image-cloud-{arch}"),
    ];
    for meta in &metas {
        let versions = archive.all_versions(meta)?;
        if let Some(image) = versions.iter().find_map(|package| image_of(package, line)) {
            return Ok(image);
        }
    }
    bail!(
        "this machine's apt sources have no kernel {line} ({} of that line). Debian 12 has 6.1 in its main archive, and \
         6.12 in bookworm-security or bookworm-backports. Add the archive and run this again, or go without that kernel: \
         echo 'deb http://deb.debian.org/debian bookworm-backports main' > /etc/apt/sources.list.d/backports.list",
        metas.join(" or ")
    )
}

/// The image that a meta package stands for, if it is of the line.
fn image_of(meta: &Package, line: &str) -> Option<Package> {
    let prefix = format!("linux-image-{line}.");
    let image = meta
        .depends
        .iter()
        .flatten()
        .find(|dependency| dependency.name.starts_with(&prefix))?;
    Some(Package {
        name: image.name.clone(),
        version: image.exact.clone().unwrap_or_else(|| meta.version.clone()),
        size: 0,
        depends: Vec::new(),
    })
}

fn architecture() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        other => bail!("`cargo xtask vm` boots x86_64 kernels on x86_64; this machine is {other}"),
    }
}

fn ready(line: &str, root: &Path) -> Result<Kernel> {
    let modules = root.join("lib/modules");
    let modules = if modules.is_dir() {
        modules
    } else {
        root.join("usr/lib/modules")
    };
    let modules = std::fs::read_dir(&modules)?
        .next()
        .context("the package has no modules")??
        .path();
    let version = modules
        .file_name()
        .context("a nameless kernel")?
        .to_string_lossy();
    let image = root.join(format!("boot/vmlinuz-{version}"));
    if !image.is_file() {
        bail!("{} is missing", image.display());
    }
    note(format_args!("kernel {line}: Debian's {version}"));
    Ok(Kernel {
        line: line.to_owned(),
        image,
        modules: modules.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::debian::control::parse_depends;

    #[test]
    fn a_meta_package_gives_its_image_if_it_is_of_the_line() {
        let meta = Package {
            name: "linux-image-cloud-amd64".to_owned(),
            version: "6.12.1-1~bpo12+1".to_owned(),
            size: 0,
            depends: parse_depends("linux-image-6.12.1+bpo-cloud-amd64 (= 6.12.1-1~bpo12+1)"),
        };
        let image = image_of(&meta, "6.12").unwrap();
        assert_eq!(
            (image.name.as_str(), image.version.as_str()),
            ("linux-image-6.12.1+bpo-cloud-amd64", "6.12.1-1~bpo12+1")
        );
        assert_eq!(image_of(&meta, "6.1"), None, "6.12 is not of the line 6.1");
    }
}
