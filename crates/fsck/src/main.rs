//! `holdfast-fsck REPO`: checks a repository with the second reader.

fn main() -> std::process::ExitCode {
    holdfast_io::cores::forbid();
    holdfast_fsck::command::run(std::env::args_os())
}
