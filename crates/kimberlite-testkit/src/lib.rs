//! Test tools of Kimberlite: simulated disk, reference model, seeded workloads.
