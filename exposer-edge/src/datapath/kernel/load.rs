//! Loading the object, and adopting what an earlier run has pinned.

use std::path::{Path, PathBuf};

use aya::maps::{MapInfo, MapType};
use aya::programs::SchedClassifier;
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use exposer_common::names::{
    GLOBAL_TUNNEL_ZONE, GLOBAL_WAN_ZONE, LAYOUT_VERSION, MAPS, PROG_TUNNEL_INGRESS, PROG_WAN_INGRESS,
};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::error::bpf;
use crate::datapath::DatapathError;

/// The folder of this layout's pins below the bpffs setting.
#[must_use]
pub fn pin_dir(bpffs: &Path) -> PathBuf {
    bpffs.join(format!("v{LAYOUT_VERSION}"))
}

/// The folder of link pins.
#[must_use]
pub fn link_dir(bpffs: &Path) -> PathBuf {
    pin_dir(bpffs).join("links")
}

/// Loads the programs with their maps, which are created and pinned, or adopted where they are pinned already.
///
/// # Errors
///
/// No bpffs, a pinned map of another layout, or what kernel and verifier said.
pub fn load(object: &[u8], bpffs: &Path, wan_zone: u8, tunnel_zone: u8) -> Result<Ebpf, DatapathError> {
    prepare(bpffs)?;
    check_pinned(object, bpffs)?;
    let (wan_zone, tunnel_zone) = (u32::from(wan_zone), u32::from(tunnel_zone));
    let mut loader = EbpfLoader::new();
    loader.override_global(GLOBAL_WAN_ZONE, &wan_zone, true);
    loader.override_global(GLOBAL_TUNNEL_ZONE, &tunnel_zone, true);
    loader.verifier_log_level(VerifierLogLevel::STATS);
    let dir = pin_dir(bpffs);
    for name in MAPS {
        loader.map_pin_path(name, dir.join(name));
    }
    let mut ebpf = loader.load(object).map_err(bpf("loading the eBPF object"))?;
    for name in [PROG_WAN_INGRESS, PROG_TUNNEL_INGRESS] {
        program(&mut ebpf, name)?
            .load()
            .map_err(bpf(&format!("loading the program {name}")))?;
    }
    Ok(ebpf)
}

/// A program of the object, by its name.
///
/// # Errors
///
/// When the object has no such program.
pub fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier, DatapathError> {
    ebpf.program_mut(name)
        .ok_or_else(|| DatapathError::Bpf(format!("the eBPF object has no program {name}")))?
        .try_into()
        .map_err(bpf(&format!("the program {name} is not of the expected type")))
}

/// Makes the folders of the pins, on a bpffs and nowhere else.
fn prepare(bpffs: &Path) -> Result<(), DatapathError> {
    let links = link_dir(bpffs);
    let system = |action: String| move |source| DatapathError::System { action, source };
    std::fs::create_dir_all(&links).map_err(system(format!(
        "creating {} (is a bpffs mounted there? `mount -t bpf bpf /sys/fs/bpf`)",
        links.display()
    )))?;
    let kind = statfs(&links)
        .map_err(std::io::Error::from)
        .map_err(system(format!(
            "looking at the file system of {}",
            links.display()
        )))?;
    if kind.filesystem_type() == BPF_FS_MAGIC {
        return Ok(());
    }
    // What was just created lies on an ordinary file system: take it away again, and say what to do.
    let _ = std::fs::remove_dir(&links);
    let _ = std::fs::remove_dir(pin_dir(bpffs));
    Err(DatapathError::Bpf(format!(
        "{} is not on a bpffs; mount one with `mount -t bpf bpf /sys/fs/bpf` or set EXPOSER_BPFFS",
        bpffs.display()
    )))
}

/// Compares every pinned map with what the object wants: aya adopts a pinned map without looking, and a wrong one
/// shows itself only as a wrong flow.
fn check_pinned(object: &[u8], bpffs: &Path) -> Result<(), DatapathError> {
    let wanted = aya_obj::Object::parse(object).map_err(bpf("reading the eBPF object"))?;
    for (name, map) in &wanted.maps {
        let path = pin_dir(bpffs).join(name);
        if !path.exists() {
            continue;
        }
        let pinned =
            MapInfo::from_pin(&path).map_err(bpf(&format!("opening the pinned map {}", path.display())))?;
        let kind = aya_obj::generated::bpf_map_type::try_from(map.map_type())
            .ok()
            .and_then(|t| MapType::try_from(t).ok());
        let same = kind.is_some()
            && pinned.map_type().ok() == kind
            && (pinned.key_size(), pinned.value_size(), pinned.max_entries())
                == (map.key_size(), map.value_size(), map.max_entries());
        if !same {
            return Err(DatapathError::Bpf(format!(
                "the pinned map {} has another shape than this version's (key {} B, value {} B, {} entries; wanted \
                 {} B, {} B, {}): it can't be adopted. `exposer-edge cleanup` removes it, with the flows in it",
                path.display(),
                pinned.key_size(),
                pinned.value_size(),
                pinned.max_entries(),
                map.key_size(),
                map.value_size(),
                map.max_entries(),
            )));
        }
    }
    Ok(())
}
