//! Runs one part of the lab.

#[derive(clap::Parser)]
enum Cli {
    #[command(subcommand)]
    Lab(piton::lab::LabCommand),
}

#[tokio::main]
async fn main() -> Result<(), piton::lab::LabError> {
    let Cli::Lab(command) = clap::Parser::parse();
    piton::lab::run(command).await
}
