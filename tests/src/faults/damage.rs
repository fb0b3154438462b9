//! Row 6: a database file is damaged, foreign, or not there.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::trial::{Trial, gives_up, run_for};
use crate::host::Host;
use crate::random::Random;
use crate::rig::Rig;

/// The store's files.
const FILES: [&str; 2] = ["commit.log", "view.redb"];

/// What a host says that finds something wrong with a file.
const REFUSALS: [&str; 4] = ["is damaged", "was not written by this host", "is not whole", "don't belong together"];

/// Flipped bits that are tried in each file: most of a file is not in use, so that a flip there changes nothing.
const FLIPS: usize = 6;

/// A way to damage a file that must be noticed wherever it is. Gives the new content; none: the file is removed.
type Damage = fn(&[u8], &mut Random) -> Option<Vec<u8>>;

const DAMAGES: [(&str, Damage); 6] = [
    ("emptied", |_, _| Some(Vec::new())),
    ("cut in half", |bytes, _| Some(bytes.get(..bytes.len() / 2).unwrap_or_default().to_vec())),
    ("cut by a byte", |bytes, _| Some(bytes.get(..bytes.len() - 1).unwrap_or_default().to_vec())),
    ("replaced by random bytes", |bytes, random| Some(bytes.iter().map(|_| random.draw().to_le_bytes()[0]).collect())),
    ("replaced by a text", |_, _| Some(b"this is no database\n".repeat(1_000))),
    ("removed", |_, _| None),
];

/// Row 6.
pub(super) async fn damaged(trial: &mut Trial) -> Result<()> {
    let mut rig = trial.rig(|_| {}).await?;
    rig.host.start().await?;
    run_for(&rig, 700).await;
    trial.healed(&mut rig).await?;
    rig.host.stop().await?;
    for file in FILES {
        let whole = fs::read(rig.host.path("data").join(file))?;
        for (what, damage) in DAMAGES {
            let content = damage(&whole, &mut trial.random);
            refuses(&mut rig.host, file, content.as_deref(), &whole).await.with_context(|| format!("{file} {what}"))?;
            trial.round();
        }
    }
    let mut noticed = 0;
    for file in FILES {
        for _ in 0..FLIPS {
            noticed += u32::from(flipped_bit(trial, &mut rig, file).await?);
            trial.round();
        }
    }
    ensure!(noticed > 0, "{} bits were flipped, and none was noticed", FLIPS * FILES.len());
    trial.note(format!("{noticed} of {} flipped bits lay in use and were noticed", FLIPS * FILES.len()));
    rig.host.start().await?;
    trial.healed(&mut rig).await
}

/// The host must refuse this content of a file and leave both files as they are; then the whole file is put back.
async fn refuses(host: &mut Host, file: &str, content: Option<&[u8]>, whole: &[u8]) -> Result<()> {
    let path = host.path("data").join(file);
    match content {
        Some(content) => fs::write(&path, content)?,
        None => fs::remove_file(&path)?,
    }
    let before = both(&host.path("data"));
    let logged = host.log().len();
    host.spawn()?;
    let said = gives_up(host, logged, &REFUSALS).await?;
    ensure!(said.contains(file), "the host did not name the file: {said}");
    ensure!(both(&host.path("data")) == before, "the host refused the files and changed them all the same");
    Ok(fs::write(&path, whole)?)
}

/// The files' bytes; none for one that is not there.
fn both(data: &Path) -> Vec<Option<Vec<u8>>> {
    FILES.iter().map(|file| fs::read(data.join(file)).ok()).collect()
}

/// Flips one bit of a file while messages wait. The host either refuses and leaves the files alone, or is not harmed: then it does its work
/// with the file as it is. True: it noticed.
async fn flipped_bit(trial: &mut Trial, rig: &mut Rig, file: &str) -> Result<bool> {
    run_for(rig, 100).await;
    rig.pause().await?;
    let path: PathBuf = rig.host.path("data").join(file);
    let whole = fs::read(&path)?;
    let mut flipped = whole.clone();
    // The head of the file is always in use; elsewhere it is a matter of luck.
    let reach = if trial.random.chance(0.5) { 32 } else { whole.len() as u64 };
    let place = trial.random.between(0, reach);
    let byte = flipped.get_mut(usize::try_from(place)?).context("the place is in the file")?;
    *byte ^= 1 << trial.random.between(0, 8);
    fs::write(&path, &flipped)?;
    let before = both(&rig.host.path("data"));
    let logged = rig.host.log().len();
    rig.host.spawn()?;
    if rig.host.ready().await.is_ok() {
        trial.healed(rig).await.with_context(|| format!("with a bit flipped at {place} of {file}"))?;
        rig.host.stop().await?;
        return Ok(false);
    }
    gives_up(&mut rig.host, logged, &REFUSALS).await.with_context(|| format!("a bit flipped at {place} of {file}"))?;
    ensure!(both(&rig.host.path("data")) == before, "a bit flipped at {place} of {file}: refused, and changed");
    fs::write(&path, &whole)?;
    Ok(true)
}
