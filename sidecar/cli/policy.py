"""`sidecar policy`: the commands of those who write policies and put them in force."""

import typer

from sidecar.cli import policy_authoring, policy_bundles, policy_replay

policy = typer.Typer(help="Policies: check, test, try, compare, sign, put in force, take back.", no_args_is_help=True)
new = typer.Typer(help="Start something new.", no_args_is_help=True)
shadow = typer.Typer(help="A candidate that decides beside the policy in force.", no_args_is_help=True)
policy.add_typer(new, name="new")
policy.add_typer(shadow, name="shadow")

policy.command("check")(policy_authoring.check)
policy.command("test")(policy_authoring.try_tests)
policy.command("eval")(policy_authoring.evaluate)
policy.command("explain")(policy_authoring.explain)
new.command("service")(policy_authoring.new_service)
policy.command("replay")(policy_replay.replay)
policy.command("diff")(policy_replay.diff)
shadow.command("status")(policy_replay.shadow_status)
policy.command("build")(policy_bundles.build)
policy.command("sign")(policy_bundles.sign)
policy.command("verify")(policy_bundles.verify)
policy.command("activate")(policy_bundles.activate)
policy.command("rollback")(policy_bundles.rollback)
policy.command("status")(policy_bundles.status)
