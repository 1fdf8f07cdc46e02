"""`sidecar policy`: the commands of those who write policies and put them in force."""

import typer

policy = typer.Typer(help="Policies: check, test, try, compare, sign, put in force, take back.", no_args_is_help=True)
new = typer.Typer(help="Start something new.", no_args_is_help=True)
shadow = typer.Typer(help="A candidate that decides beside the policy in force.", no_args_is_help=True)
policy.add_typer(new, name="new")
policy.add_typer(shadow, name="shadow")
