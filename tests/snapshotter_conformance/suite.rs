//! A served root directory, in a mount namespace and on a tmpfs of its own: nothing is left behind.

use std::{
    collections::{BTreeMap, HashMap},
    env, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use containerd_snapshots::{Info, Snapshotter, api::types::Mount};
use futures_util::TryStreamExt;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::stat::{Mode, umask},
};
use snapshotter::{
    cleanup::Sweeper,
    config::DataPath,
    daemon::{self, Launch, LaunchOptions},
    instance::Images,
    layout::Layout,
    meta::Database,
    nydusd_config::Template,
    overlay,
    service::Service,
    snapshots::Snapshots,
};
use tonic_09::{Code, Status};

/// A served root directory.
pub(crate) struct Suite {
    pub(crate) service: Service,
    pub(crate) dir: PathBuf,
    points: AtomicU32,
    // Keeps the daemon's owner, so that it is down rather than closed.
    _supervisor: daemon::Supervisor,
}

pub(crate) type Answer<T> = Result<T, Status>;

/// Runs a test on an empty root directory.
pub(crate) fn with_suite(test: impl AsyncFnOnce(Suite)) {
    let dir = tempfile::tempdir().unwrap();
    unshare(CloneFlags::CLONE_NEWNS).expect("these tests need root");
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC, None::<&str>).unwrap();
    mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some("mode=755")).unwrap();
    umask(Mode::empty());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { test(Suite::start(dir.path()).await).await });
    drop(runtime);
    env::set_current_dir("/").unwrap();
    umount2(dir.path(), MntFlags::MNT_DETACH).unwrap();
}

impl Suite {
    async fn start(dir: &Path) -> Self {
        let layout = Layout::create(&dir.join("root")).unwrap();
        let database = Database::open(&layout.database()).await.unwrap();
        let options =
            LaunchOptions { binary: "/nonexistent/nydusd".into(), log_level: "info".into(), threads: None };
        let (daemon, supervisor) = daemon::new(Launch::new(options, &layout));
        let images = Images::new(daemon, layout.clone(), Template::standard(&layout.cache()), DataPath::Auto);
        let sweeper = Sweeper::new(database.clone(), layout.clone(), layout.cache(), images.clone());
        let service = Service(Snapshots::new(database, layout, images, sweeper, overlay::options()));
        Self { service, dir: dir.to_owned(), points: AtomicU32::new(0), _supervisor: supervisor }
    }

    pub(crate) async fn prepare(&self, key: &str, parent: &str) -> Answer<Vec<Mount>> {
        self.prepare_labelled(key, parent, &[]).await
    }

    pub(crate) async fn prepare_labelled(
        &self,
        key: &str,
        parent: &str,
        labels: &[(&str, &str)],
    ) -> Answer<Vec<Mount>> {
        Ok(self.service.prepare(key.into(), parent.into(), map(labels)).await?)
    }

    pub(crate) async fn view(&self, key: &str, parent: &str) -> Answer<Vec<Mount>> {
        Ok(self.service.view(key.into(), parent.into(), HashMap::new()).await?)
    }

    pub(crate) async fn commit(&self, name: &str, key: &str) -> Answer<()> {
        Ok(self.service.commit(name.into(), key.into(), HashMap::new()).await?)
    }

    pub(crate) async fn stat(&self, key: &str) -> Answer<Info> {
        Ok(self.service.stat(key.into()).await?)
    }

    pub(crate) async fn remove(&self, key: &str) -> Answer<()> {
        Ok(self.service.remove(key.into()).await?)
    }

    pub(crate) async fn update(&self, info: Info, fields: &[&str]) -> Answer<Info> {
        let fields = fields.iter().map(|&field| field.to_owned()).collect();
        Ok(self.service.update(info, Some(fields)).await?)
    }

    pub(crate) async fn list(&self, filters: &[&str]) -> Answer<Vec<Info>> {
        let filters = filters.iter().map(|&filter| filter.to_owned()).collect();
        Ok(self.service.list("nydus".into(), filters).await?.try_collect().await?)
    }

    /// Commits a layer that `change` makes in the mounted tree.
    pub(crate) async fn layer(&self, name: &str, parent: &str, change: impl FnOnce(&Path)) {
        let mounts = self.prepare("work", parent).await.unwrap();
        self.mounted(&mounts, change);
        self.commit(name, "work").await.unwrap();
    }

    /// The tree of a committed snapshot, as a read-only view shows it.
    pub(crate) async fn tree(&self, name: &str) -> BTreeMap<String, Entry> {
        let mounts = self.view("tree", name).await.unwrap();
        let tree = self.mounted(&mounts, tree);
        self.remove("tree").await.unwrap();
        tree
    }

    /// Calls `look` with the mounts really made, and takes them away again.
    pub(crate) fn mounted<T>(&self, mounts: &[Mount], look: impl FnOnce(&Path) -> T) -> T {
        let [wanted] = mounts else { panic!("one mount, not {mounts:?}") };
        let point = self.dir.join(format!("point{}", self.points.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&point).unwrap();
        // As containerd does: paths relative to their common place, or 128 layers do not fit into mount(2).
        let place = self.dir.join("root/snapshots");
        env::set_current_dir(&place).unwrap();
        make(wanted, &point, &format!("{}/", place.display()));
        env::set_current_dir("/").unwrap();
        let result = look(&point);
        umount2(&point, MntFlags::empty()).unwrap();
        result
    }
}

fn make(wanted: &Mount, point: &Path, place: &str) {
    let read_only = wanted.options.iter().any(|option| option == "ro");
    if wanted.r#type == "bind" {
        let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(wanted.source.as_str()), point, None::<&str>, bind, None::<&str>).unwrap();
        if read_only {
            let remount = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            mount(None::<&str>, point, None::<&str>, remount, None::<&str>).unwrap();
        }
        return;
    }
    let options = wanted.options.join(",").replace(place, "");
    let kind = Some(wanted.r#type.as_str());
    mount(Some(wanted.source.as_str()), point, kind, MsFlags::empty(), Some(options.as_str())).unwrap();
}

pub(crate) fn map(labels: &[(&str, &str)]) -> HashMap<String, String> {
    labels.iter().map(|&(key, value)| (key.into(), value.into())).collect()
}

/// Mode with type, owner, content.
pub(crate) type Entry = (u32, u32, Vec<u8>);

pub(crate) fn tree(root: &Path) -> BTreeMap<String, Entry> {
    let mut tree = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let found = fs::symlink_metadata(&path).unwrap();
        if found.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let content = if found.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        tree.insert(name, (found.mode(), found.uid(), content));
    }
    tree
}

pub(crate) fn names(tree: &BTreeMap<String, Entry>) -> Vec<&str> {
    tree.keys().map(String::as_str).filter(|name| !name.is_empty()).collect()
}

pub(crate) fn code<T>(answer: Answer<T>) -> Code {
    answer.err().expect("an error").code()
}
