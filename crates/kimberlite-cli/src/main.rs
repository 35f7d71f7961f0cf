//! The command line of Kimberlite.

#![forbid(unsafe_code)]

mod args;
mod commands;
mod exit;
mod output;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Args, Command};
use exit::Failure;
use output::Output;

fn main() -> ExitCode {
    let args = Args::parse();
    let output = Output { json: args.json };
    match run(&args, &output) {
        Ok(code) => code,
        Err(failure) => {
            output.failure(&failure);
            failure.exit_code()
        }
    }
}

fn run(args: &Args, output: &Output) -> Result<ExitCode, Failure> {
    let db = args.db.as_path();
    match &args.command {
        Command::Import(import) => commands::import::run(db, import, output),
        Command::Append(append) => commands::append::run(db, append, output),
        Command::Read(read) => commands::read::run(db, read, output),
        Command::Tail(tail) => commands::read::tail(db, tail, output),
        Command::Get(get) => commands::projection::get(db, get, output),
        Command::Scan(scan) => commands::projection::scan(db, scan, output),
        Command::History(history) => commands::projection::history(db, history, output),
        Command::Projections(args) => commands::projection::projections(db, args, output),
        Command::Streams(tenant) => commands::survey::streams(db, tenant, output),
        Command::Sql(sql) => commands::sql::run(db, sql, output),
        Command::Stats(tenant) => commands::survey::stats(db, tenant, output),
        Command::Inspect(tenant) => commands::survey::inspect(db, tenant, output),
        Command::Verify(tenant) => commands::verify::run(db, tenant, output),
        Command::Backup(backup) => commands::backup::run(db, backup, output),
        Command::Restore(restore) => commands::restore::run(restore, output),
        Command::Doctor => commands::doctor::run(db, output),
        Command::Repair(repair) => commands::repair::run(db, repair, output),
        Command::Scrub(scrub) => commands::scrub::run(db, scrub, output),
        Command::Hold(hold) => commands::retention::hold(db, hold, output),
        Command::Release(release) => commands::retention::release(db, release, output),
        Command::Holds(tenant) => commands::retention::holds(db, &tenant.tenant, output),
        Command::Retain(retain) => commands::retention::retain(db, retain, output),
        Command::Purge(purge) => commands::retention::purge(db, purge, output),
        Command::Checkpoint(tenant) => commands::survey::checkpoint(db, tenant, output),
        Command::Demo(demo) => commands::demo::run(demo, output),
        Command::DemoWriter { dir } => commands::kill::writer(dir),
        Command::DemoCheck { dir } => commands::kill::check_left(dir),
        Command::KillTest { rounds, seed } => commands::kill::kill_test(*rounds, *seed, output),
        Command::Completions { shell } => {
            let mut command = <Args as clap::CommandFactory>::command();
            clap_complete::generate(*shell, &mut command, "kimberlite", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}
