//! Kernel modules: which files, and in which order they must be loaded.
//!
//! A kernel package has no `modules.dep`: that is made when it is installed, which it never is here. Every module names
//! those that it needs itself, in the section `.modinfo`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::command::Cmd;

/// What the tests' networks are made of: links, the tunnel, the hook of the programs below Linux 6.6, and the firewall.
pub const WANTED: &[&str] = &[
    "veth",
    "tun",
    "dummy",
    "wireguard",
    "sch_ingress",
    "cls_bpf",
    "nf_tables",
    "nft_ct",
    "nft_reject_inet",
];

/// The modules of an unpacked kernel package.
pub struct Modules {
    files: BTreeMap<String, PathBuf>,
    builtin: Vec<String>,
}

/// A module as the guest loads it.
pub struct Module {
    /// Its name, as `sch_ingress`.
    pub name: String,
    /// The file's content, not compressed.
    pub content: Vec<u8>,
}

impl Modules {
    /// Finds the modules below `folder`, a kernel's `lib/modules/VERSION`.
    ///
    /// # Errors
    ///
    /// When a folder can't be read.
    pub fn find(folder: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        collect(&folder.join("kernel"), &mut files)?;
        let list = folder.join("modules.builtin");
        let builtin =
            std::fs::read_to_string(&list).with_context(|| format!("can't read {}", list.display()))?;
        let builtin = builtin
            .lines()
            .filter_map(|line| name_of(Path::new(line)))
            .collect();
        Ok(Self { files, builtin })
    }

    /// The wanted modules and all that they need, each after what it needs.
    ///
    /// # Errors
    ///
    /// When the kernel lacks one of them, or a file can't be read.
    pub fn in_order(&self, wanted: &[&str]) -> Result<Vec<Module>> {
        let mut order = Vec::new();
        for name in wanted {
            self.add(&plain(name), &mut order)?;
        }
        Ok(order)
    }

    fn add(&self, name: &str, order: &mut Vec<Module>) -> Result<()> {
        if order.iter().any(|module| module.name == name) || self.builtin.iter().any(|other| other == name) {
            return Ok(());
        }
        let Some(file) = self.files.get(name) else {
            bail!("this kernel package has no module `{name}`");
        };
        let content = read(file)?;
        for needed in depends(&content) {
            self.add(&plain(&needed), order)?;
        }
        order.push(Module {
            name: name.to_owned(),
            content,
        });
        Ok(())
    }
}

fn collect(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("can't read the folder {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if let Some(name) = name_of(&path) {
            files.insert(name, path);
        }
    }
    Ok(())
}

/// `curve25519_x86_64` of `…/curve25519-x86_64.ko.xz`.
fn name_of(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let (name, rest) = file.split_once(".ko")?;
    matches!(rest, "" | ".xz" | ".gz" | ".zst").then(|| plain(name))
}

/// The kernel does not tell `-` from `_` in a module's name.
fn plain(name: &str) -> String {
    name.replace('-', "_")
}

fn read(file: &Path) -> Result<Vec<u8>> {
    let tool = match file.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("gz") => "gzip",
        Some("zst") => "zstd",
        _ => return std::fs::read(file).with_context(|| format!("can't read {}", file.display())),
    };
    let output = Cmd::new(tool)
        .args(["-d", "-c"])
        .arg(file)
        .output()
        .with_context(|| {
            format!("the kernel's modules are compressed; install what unpacks them: apt install {tool}")
        })?;
    if !output.status.success() {
        bail!(
            "{} can't be unpacked: {}",
            file.display(),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(output.stdout)
}

/// The value of `depends=` among the zero-ended strings of a module.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = module
        .get(at + KEY.len()..)
        .and_then(|rest| rest.split(|byte| *byte == 0).next())
        .unwrap_or_default();
    String::from_utf8_lossy(value)
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_needs_of_modules() {
        assert_eq!(
            name_of(Path::new("kernel/a/curve25519-x86_64.ko.xz")).as_deref(),
            Some("curve25519_x86_64")
        );
        assert_eq!(name_of(Path::new("modules.order")), None);
        assert_eq!(
            depends(b"license=GPL\0depends=udp_tunnel,ip6-x\0name=a\0"),
            ["udp_tunnel", "ip6-x"]
        );
        assert!(depends(b"license=GPL\0depends=\0name=a\0").is_empty());
        assert!(depends(b"nothing").is_empty());
    }

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let dir = std::env::temp_dir().join(format!("xtask-modules-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("kernel/net")).unwrap();
        for (name, needs) in [("a", "b-b,c"), ("b-b", "c"), ("c", "d"), ("e", "lost")] {
            let file = dir.join(format!("kernel/net/{name}.ko"));
            std::fs::write(file, format!("x\0depends={needs}\0")).unwrap();
        }
        std::fs::write(dir.join("modules.builtin"), "kernel/net/d.ko\n").unwrap();
        let modules = Modules::find(&dir).unwrap();
        let order: Vec<_> = modules
            .in_order(&["a", "c"])
            .unwrap()
            .into_iter()
            .map(|module| module.name)
            .collect();
        assert_eq!(order, ["c", "b_b", "a"]);
        let error = modules.in_order(&["e"]).err().unwrap().to_string();
        assert!(error.contains("`lost`"), "{error}");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
