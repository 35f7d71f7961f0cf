//! All file access of Kimberlite: the disk trait and the operating system's disk.
