//! Images of filesystems on loop devices, which stand in for sticks.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Result, command::run};

/// A loop device with an image in it, until this is dropped.
#[derive(Debug)]
pub struct Loop {
    device: String,
}

impl Loop {
    /// Makes an ext4 with that label in a file of a folder.
    pub fn image(folder: &Path, label: &str) -> Result<PathBuf> {
        let image = folder.join(label);
        File::create(&image)?.set_len(16 << 20)?;
        run(Command::new("/sbin/mke2fs").args(["-q", "-t", "ext4", "-L", label]).arg(&image))?;
        Ok(image)
    }

    /// Puts an image into whichever device is free.
    pub fn with(image: &Path) -> Result<Self> {
        let device = run(Command::new("losetup").args(["--find", "--show"]).arg(image))?.trim().to_owned();
        Ok(Self { device })
    }

    /// `/dev/loop7`.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// `MAJOR:MINOR`.
    pub fn number(&self) -> Result<String> {
        let minor = self.device.strip_prefix("/dev/loop").ok_or_else(|| format!("{} is no loop device", self.device))?;
        Ok(format!("7:{minor}"))
    }

    /// Takes the image out and puts another one into the same device.
    pub fn replace(&self, image: &Path) -> Result<()> {
        run(Command::new("losetup").args(["--detach", &self.device]))?;
        run(Command::new("losetup").arg(&self.device).arg(image))?;
        Ok(())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.device]).output();
    }
}
