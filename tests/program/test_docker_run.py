"""``docker_run.sh`` on machines of other people: the command line, with stand-ins for docker, podman and the system."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from test_docker_commands import Run, checkout, docker_run, inside, planned, stub

__all__ = ["checkout", "docker_run"]  # fixtures


def after(words: list[str], option: str) -> list[str]:
    """What stands behind each ``option``."""
    return [words[i + 1] for i, word in enumerate(words) if word == option]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "my pictures"
    folder.mkdir()
    (folder / "labels.csv").write_text("file,label\n")
    return folder


@pytest.mark.parametrize("in_one_word", [False, True])
def test_a_folder_of_ones_own_is_mounted_by_itself(docker_run: Run, pictures: Path, in_one_word: bool) -> None:
    given = [f"--source={pictures}"] if in_one_word else ["--source", str(pictures)]
    words = planned(docker_run, "data", "images", *given, "--name", "mine")
    assert f"type=bind,source={pictures},target=/mnt/1/my pictures,readonly" in after(words, "--mount")
    assert "/mnt/1/my pictures" in " ".join(inside(words)) and str(pictures) not in inside(words)


def test_a_folder_in_the_home_folder_is_mounted(docker_run: Run, pictures: Path) -> None:
    """bash hands on the ~ of --source=~/x as it is."""
    words = planned(docker_run, "data", "images", f"--source=~/{pictures.name}", HOME=str(pictures.parent))
    assert f"type=bind,source={pictures},target=/mnt/1/my pictures,readonly" in after(words, "--mount")
    assert inside(words)[-1] == "--source=/mnt/1/my pictures"


def test_a_file_comes_with_its_folder_and_an_address_stays(docker_run: Run, pictures: Path) -> None:
    words = planned(docker_run, "data", "images", "--labels", f"{pictures}/labels.csv", "--source", "https://a.b/c.zip")
    assert f"type=bind,source={pictures},target=/mnt/1/my pictures,readonly" in after(words, "--mount")
    assert inside(words)[-4:] == ["--labels", "/mnt/1/my pictures/labels.csv", "--source", "https://a.b/c.zip"]


@pytest.mark.parametrize(("target", "wanted"), [("", None), (":/data", "/data")])
def test_anything_may_be_mounted(docker_run: Run, pictures: Path, target: str, wanted: str | None) -> None:
    words = planned(docker_run, "--mount", f"{pictures}{target}", "true")
    assert f"type=bind,source={pictures},target={wanted or pictures},readonly" in after(words, "--mount")
    assert "there is no /nowhere" in docker_run("--dry-run", "--mount", "/nowhere", "true").stderr
    assert "no path from the root" in docker_run("--dry-run", "--mount", f"{pictures}:data", "true").stderr


def test_what_a_download_needs_is_handed_on(docker_run: Run, pictures: Path) -> None:
    proxies = {"https_proxy": "http://me:secret@proxy:3128", "NO_PROXY": "localhost"}
    words = planned(docker_run, "true", **proxies, SSL_CERT_FILE=f"{pictures}/labels.csv", HF_HOME=str(pictures),
                    HF_TOKEN="hf_secret", WANDB_API_KEY="key", CUDA_VISIBLE_DEVICES="1")  # fmt: skip
    handed = set(after(words, "--env"))
    assert handed >= {*proxies, "SSL_CERT_FILE", "HF_HOME", "HF_TOKEN", "WANDB_API_KEY", "CUDA_VISIBLE_DEVICES"}
    assert "secret" not in " ".join(words)
    assert {f"{pictures}/labels.csv:{pictures}/labels.csv:ro", f"{pictures}:{pictures}"} <= set(
        after(words, "--volume")
    )
    assert "not there" in docker_run("--dry-run", "true", SSL_CERT_FILE="/nowhere.pem").stderr


def test_what_the_documents_tell_to_set_is_handed_on(docker_run: Run, pictures: Path) -> None:
    """Trackers, and how OpenMP's threads wait (docs/tracking.md, docs/training.md)."""
    told = {
        "MLFLOW_TRACKING_URI": "https://me:secret@host", "MLFLOW_TRACKING_TOKEN": "secret", "OMP_NUM_THREADS": "2",
        "OMP_WAIT_POLICY": "active", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0",
    }  # fmt: skip
    words = planned(docker_run, "true", **told, OMPI_COMM_WORLD_RANK="3", MLFLOW_STORE=str(pictures))
    handed = set(after(words, "--env"))
    assert handed >= told.keys() and "OMPI_COMM_WORLD_RANK" not in handed and "secret" not in " ".join(words)
    assert f"{pictures}:{pictures}" in after(words, "--volume")


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_hidden_gpus_are_not_used(docker_run: Run, tmp_path: Path, hidden: str) -> None:
    stub(tmp_path / "bin", "nvidia-smi", "echo 'GPU 0: Something'")
    assert "--gpus" not in planned(docker_run, "true", CUDA_VISIBLE_DEVICES=hidden)


def test_podman(docker_run: Run, tmp_path: Path) -> None:
    stub(tmp_path / "bin", "podman", '[[ $1 == image ]] || printf "%s\\0" podman "$@"')
    stub(tmp_path / "bin", "nvidia-smi", "echo 'GPU 0: Something'")
    words = planned(docker_run, "true", LVAE_ENGINE="podman", LVAE_GPUS="device=0,1")
    assert words[0] == "podman" and after(words, "--userns") == ["keep-id"] and "--gpus" not in words
    assert after(words, "--device") == ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]
    assert after(planned(docker_run, "true", LVAE_ENGINE="podman"), "--device") == ["nvidia.com/gpu=all"]
    stub(tmp_path / "bin", "docker", 'exec podman "$@"')
    assert "--userns" in planned(docker_run, "true"), "a docker that is podman"


def test_rootless_docker(docker_run: Run, tmp_path: Path) -> None:
    stub(tmp_path / "bin", "docker", "[[ $1 == info ]] && echo '[name=seccomp name=rootless]'")
    assert after(planned(docker_run, "true"), "--user") == ["0:0"]


def test_a_daemon_that_never_answers_is_not_waited_for(docker_run: Run, tmp_path: Path) -> None:
    stub(tmp_path / "bin", "docker", "[[ $1 == info ]] && exec sleep 60")
    assert after(planned(docker_run, "true"), "--user") == [f"{os.getuid()}:{os.getgid()}"]


def test_sudo_leaves_results_to_the_person(docker_run: Run, tmp_path: Path) -> None:
    stub(tmp_path / "bin", "id", "echo 0")
    assert after(planned(docker_run, "true", SUDO_UID="1234", SUDO_GID="99"), "--user") == ["1234:99"]


def test_selinux(docker_run: Run, tmp_path: Path, pictures: Path) -> None:
    stub(tmp_path / "bin", "getenforce", "echo Enforcing")
    words = planned(docker_run, "data", "images", "--source", str(pictures))
    assert f"{pictures}:/mnt/1/my pictures:ro,z" in after(words, "--volume") and "--mount" not in words


@pytest.mark.parametrize(("said", "told"), [
    ("permission denied while trying to connect to the Docker daemon socket", "permission denied while trying"),
    ("Cannot connect to the Docker daemon. Is the docker daemon running?", "Cannot connect to the Docker daemon"),
    ("Error: No such image: lvae_torch", "docker build -f build/Dockerfile"),
    ("Error: lvae_torch: image not known", "docker build -f build/Dockerfile"),
])  # fmt: skip
def test_the_engines_own_words_are_shown(docker_run: Run, tmp_path: Path, said: str, told: str) -> None:
    stub(tmp_path / "bin", "docker", f"echo '{said}' >&2; exit 1")
    result = docker_run("true")
    assert result.returncode == 2 and told in result.stderr


def test_a_link_to_the_script_is_as_good(docker_run: Run, checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "bin" / "lvae-run").symlink_to(checkout / "docker_run.sh")
    env = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    result = subprocess.run(
        [tmp_path / "bin" / "lvae-run", "--dry-run", "true"], capture_output=True, text=True, env=env
    )
    assert f"source={checkout},target=/workspace,readonly" in result.stdout


NEWER = {
    "bash 4": r"\bmapfile\b|\breadarray\b|declare -A|\$\{\w+(\^\^?|,,?)[\w}]|\|&|&>>|\bcoproc\b|;;?&|\$\{\w+@[A-Z]",
    "empty arrays fail there": r"=\(\)[\s\S]*?\"\$\{(?!command|inside|options)\w+\[@\]\}\"",
    "no such program there": r"\brealpath\b|readlink -f|\btac\b|(?<!-)\btimeout\b|grep -P",
}


@pytest.mark.parametrize("what", NEWER)
def test_an_old_bash_understands_it(repository: Path, what: str) -> None:
    """macOS has bash 3.2, which few other machines have: what it does not know is searched for."""
    text = re.sub(r"^\s*#.*$", "", (repository / "docker_run.sh").read_text(), flags=re.MULTILINE)
    assert not re.search(NEWER[what], text)


def test_scripts_keep_their_line_ends(repository: Path) -> None:
    assert "* text=auto eol=lf" in (repository / ".gitattributes").read_text()
