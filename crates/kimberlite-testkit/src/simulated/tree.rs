//! Directories and the names in them: as seen, as durable, and the changes in between.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};

use kimberlite_disk::{DiskError, Entry};

use super::node::FileNode;

pub(super) type NodeId = u64;
const ROOT: NodeId = 0;

#[derive(Clone, Debug, Default)]
pub(super) struct DirectoryNode {
    pub(super) visible: BTreeMap<String, NodeId>,
    pub(super) durable: BTreeMap<String, NodeId>,
}

#[derive(Clone, Debug)]
pub(super) enum Node {
    File(FileNode),
    Directory(DirectoryNode),
}

/// One name of one directory gets another meaning, or none.
#[derive(Clone, Debug)]
pub(super) struct EntrySetting {
    pub(super) directory: NodeId,
    pub(super) name: String,
    pub(super) node: Option<NodeId>,
}

/// The whole disk. Nodes without a name stay until power is lost: files may still be open.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    pub(super) nodes: BTreeMap<NodeId, Node>,
    /// Unsynced changes of names, oldest first; the settings of one are made together.
    pub(super) pending: Vec<Vec<EntrySetting>>,
}

impl Tree {
    pub(super) fn new() -> Self {
        let root = Node::Directory(DirectoryNode::default());
        Self {
            nodes: BTreeMap::from([(ROOT, root)]),
            pending: Vec::new(),
        }
    }

    pub(super) fn find(&self, path: &Path) -> Option<NodeId> {
        names(path).iter().try_fold(ROOT, |node, name| {
            self.directory(node)?.visible.get(name).copied()
        })
    }

    pub(super) fn existing(&self, path: &Path) -> Result<NodeId, DiskError> {
        self.find(path).ok_or_else(|| not_found(path))
    }

    pub(super) fn existing_directory(
        &self,
        path: &Path,
        operation: &'static str,
    ) -> Result<NodeId, DiskError> {
        let node = self.existing(path)?;
        self.directory(node).ok_or_else(|| {
            DiskError::from_io(path, operation, io::ErrorKind::NotADirectory.into())
        })?;
        Ok(node)
    }

    pub(super) fn file(&self, node: NodeId) -> Option<&FileNode> {
        match self.nodes.get(&node) {
            Some(Node::File(file)) => Some(file),
            _ => None,
        }
    }

    pub(super) fn file_mut(&mut self, node: NodeId) -> Option<&mut FileNode> {
        match self.nodes.get_mut(&node) {
            Some(Node::File(file)) => Some(file),
            _ => None,
        }
    }

    fn directory(&self, node: NodeId) -> Option<&DirectoryNode> {
        match self.nodes.get(&node) {
            Some(Node::Directory(directory)) => Some(directory),
            _ => None,
        }
    }

    pub(super) fn directory_mut(&mut self, node: NodeId) -> &mut DirectoryNode {
        match self.nodes.get_mut(&node) {
            Some(Node::Directory(directory)) => directory,
            _ => unreachable!("the node of an open or named directory is one"),
        }
    }

    pub(super) fn create_file(&mut self, path: &Path, private: bool) -> Result<NodeId, DiskError> {
        self.create_node(path, Node::File(FileNode::new(private)))
    }

    pub(super) fn create_directory(&mut self, path: &Path) -> Result<NodeId, DiskError> {
        self.create_node(path, Node::Directory(DirectoryNode::default()))
    }

    fn create_node(&mut self, path: &Path, node: Node) -> Result<NodeId, DiskError> {
        if self.find(path).is_some() {
            return Err(DiskError::AlreadyExists {
                path: path.to_path_buf(),
            });
        }
        let (directory, name) = self.place(path, "create")?;
        let id = self
            .nodes
            .last_key_value()
            .map_or(ROOT, |(last, _)| last + 1);
        self.nodes.insert(id, node);
        self.set(vec![EntrySetting {
            directory,
            name,
            node: Some(id),
        }]);
        Ok(id)
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> Result<(), DiskError> {
        let node = self.existing(from)?;
        let (from_directory, from_name) = self.place(from, "rename")?;
        let (to_directory, to_name) = self.place(to, "rename")?;
        if let Some(replaced) = self.find(to) {
            if replaced == node {
                return Ok(());
            }
            if self.file(replaced).is_none() || self.file(node).is_none() {
                return Err(is_a_directory(to, "rename"));
            }
        }
        self.set(vec![
            EntrySetting {
                directory: from_directory,
                name: from_name,
                node: None,
            },
            EntrySetting {
                directory: to_directory,
                name: to_name,
                node: Some(node),
            },
        ]);
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> Result<(), DiskError> {
        let node = self.existing(path)?;
        self.file(node)
            .ok_or_else(|| is_a_directory(path, "remove"))?;
        let (directory, name) = self.place(path, "remove")?;
        self.set(vec![EntrySetting {
            directory,
            name,
            node: None,
        }]);
        Ok(())
    }

    pub(super) fn list(&self, path: &Path) -> Result<Vec<Entry>, DiskError> {
        let node = self.existing_directory(path, "list")?;
        let named = self.directory(node).map(|directory| &directory.visible);
        let entry = |(name, node): (&String, &NodeId)| {
            let file = self.file(*node);
            Entry {
                name: name.clone(),
                is_dir: file.is_none(),
                bytes: file.map_or(0, length_of),
            }
        };
        Ok(named.into_iter().flatten().map(entry).collect())
    }

    /// Makes the names of a directory durable as they are.
    pub(super) fn sync_directory(&mut self, directory: NodeId) {
        for setting in self.take_pending(directory) {
            apply(&mut self.directory_mut(directory).durable, &setting);
        }
    }

    /// A sync of the directory failed: its unsynced names stay until power is lost.
    pub(super) fn give_up_directory(&mut self, directory: NodeId) {
        self.take_pending(directory);
    }

    pub(super) fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut left = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, node)) = left.pop() {
            match self.directory(node) {
                Some(directory) => {
                    left.extend(
                        directory
                            .visible
                            .iter()
                            .map(|(name, &id)| (path.join(name), id)),
                    );
                }
                None => files.push(path),
            }
        }
        files.sort();
        files
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.files()
            .iter()
            .filter_map(|path| self.file(self.find(path)?))
            .map(length_of)
            .sum()
    }

    /// Copies the files at and below `path`, with their names from there on.
    pub(super) fn branch(&self, path: &Path) -> Vec<(PathBuf, FileNode)> {
        let under = rooted(path);
        let files = self.files().into_iter().filter(|it| it.starts_with(&under));
        files
            .filter_map(|it| Some((it.clone(), self.file(self.find(&it)?)?.clone())))
            .collect()
    }

    /// Puts these files in place of those at and below `path`. All names on the way, and all the
    /// bytes, are durable as they are seen.
    pub(super) fn graft(&mut self, path: &Path, branch: Vec<(PathBuf, FileNode)>) {
        let replaced = self.branch(path);
        for (path, _) in replaced {
            self.remove(&path).expect("it was listed");
        }
        for (path, mut file) in branch {
            let content = file.visible().to_vec();
            file.settle(content);
            self.create_directories_above(&path);
            self.create_node(&path, Node::File(file))
                .expect("what had this name was removed");
        }
        self.pending.clear();
        for node in self.nodes.values_mut() {
            if let Node::Directory(directory) = node {
                directory.durable.clone_from(&directory.visible);
            }
        }
    }

    fn create_directories_above(&mut self, path: &Path) {
        let above = path.parent().map(rooted).unwrap_or_default();
        if self.find(&above).is_none() {
            self.create_directories_above(&above);
            self.create_directory(&above).expect("it was not there");
        }
    }

    /// Forgets nodes that no name leads to.
    pub(super) fn forget_nameless(&mut self) {
        let mut named = BTreeSet::new();
        let mut left = vec![ROOT];
        while let Some(node) = left.pop() {
            named.insert(node);
            if let Some(directory) = self.directory(node) {
                left.extend(directory.visible.values());
            }
        }
        self.nodes.retain(|id, _| named.contains(id));
    }

    /// The directory that a path is in, and its name there.
    fn place(&self, path: &Path, operation: &'static str) -> Result<(NodeId, String), DiskError> {
        let mut names = names(path);
        let name = names.pop().ok_or_else(|| {
            DiskError::from_io(path, operation, io::ErrorKind::InvalidInput.into())
        })?;
        let above: PathBuf = names.iter().collect();
        let directory = self.find(&above).ok_or_else(|| not_found(path))?;
        self.directory(directory).ok_or_else(|| {
            DiskError::from_io(path, operation, io::ErrorKind::NotADirectory.into())
        })?;
        Ok((directory, name))
    }

    fn set(&mut self, settings: Vec<EntrySetting>) {
        for setting in &settings {
            apply(&mut self.directory_mut(setting.directory).visible, setting);
        }
        self.pending.push(settings);
    }

    /// Takes what is pending for one directory; the other half of a rename stays pending.
    fn take_pending(&mut self, directory: NodeId) -> Vec<EntrySetting> {
        let mut taken = Vec::new();
        for settings in &mut self.pending {
            taken.extend(settings.extract_if(.., |setting| setting.directory == directory));
        }
        self.pending.retain(|settings| !settings.is_empty());
        taken
    }
}

pub(super) fn apply(entries: &mut BTreeMap<String, NodeId>, setting: &EntrySetting) {
    match setting.node {
        Some(node) => entries.insert(setting.name.clone(), node),
        None => entries.remove(&setting.name),
    };
}

pub(super) fn is_a_directory(path: &Path, operation: &'static str) -> DiskError {
    DiskError::from_io(path, operation, io::ErrorKind::IsADirectory.into())
}

fn not_found(path: &Path) -> DiskError {
    DiskError::NotFound {
        path: path.to_path_buf(),
    }
}

fn length_of(file: &FileNode) -> u64 {
    u64::try_from(file.visible().len()).expect("a file in memory is shorter than 2^64 bytes")
}

/// The path as the lists of files have it.
fn rooted(path: &Path) -> PathBuf {
    let names = names(path);
    std::iter::once("/")
        .chain(names.iter().map(String::as_str))
        .collect()
}

fn names(path: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_string_lossy().into_owned()),
            Component::ParentDir => drop(names.pop()),
            Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
        }
    }
    names
}
