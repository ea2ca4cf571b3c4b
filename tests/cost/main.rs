//! What things cost, in allocations, bytes and reads: figures that are the same on every machine.
//!
//! A program of its own, because it counts what the whole process does; one test at a time, for the same
//! reason. What a request, a connection or the counting itself costs cancels out: each figure is what *more*
//! of something costs, on the same gateway.

mod events;
mod finished;
mod support;

/// Counts allocations, while somebody asks.
#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;
