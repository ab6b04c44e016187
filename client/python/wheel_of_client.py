"""Build backend (PEP 517, PEP 660) of this pure-Python package: a wheel is a zip file with the modules and three
files about them (PEP 427). Written here because pip fetches any other backend from the network, which a laboratory's
machine often lacks."""

import base64
import hashlib
import io
import os
import tarfile
import zipfile

HERE = os.path.dirname(os.path.abspath(__file__))
NAME = "rfuav_client"
MODULES = ["rfuav_client/__init__.py", "rfuav_client/client.py", "rfuav_client/transport.py",
           "rfuav_client/version.py", "test_refactored_api.py"]


def _read(path):
    with open(os.path.join(HERE, path), "rb") as file:
        return file.read()


def _version():
    names = {}
    exec(_read("rfuav_client/version.py"), names)
    return names["__version__"]


def _metadata():
    return (f"Metadata-Version: 2.1\nName: rfuav-client\nVersion: {_version()}\n"
            "Summary: Python client of the RFUAV model service\nRequires-Python: >=3.8\n"
            "Description-Content-Type: text/markdown\n\n").encode() + _read("README.md")


def _wheel(directory, files):
    info = f"{NAME}-{_version()}.dist-info"
    files = dict(files)
    files[f"{info}/METADATA"] = _metadata()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: rfuav-client\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = ""
    for path, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(data)}\n"
    files[f"{info}/RECORD"] = (record + f"{info}/RECORD,,\n").encode()
    name = f"{NAME}-{_version()}-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(directory, name), "w", zipfile.ZIP_DEFLATED) as wheel:
        for path, data in files.items():
            wheel.writestr(zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0)), data)
    return name


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    return _wheel(wheel_directory, {path: _read(path) for path in MODULES})


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    return _wheel(wheel_directory, {f"{NAME}.pth": (HERE + "\n").encode()})


def build_sdist(sdist_directory, config_settings=None):
    base = f"{NAME}-{_version()}"
    name = base + ".tar.gz"
    files = {path: _read(path) for path in MODULES + ["README.md", "pyproject.toml", "wheel_of_client.py"]}
    files["PKG-INFO"] = _metadata()
    with tarfile.open(os.path.join(sdist_directory, name), "w:gz") as archive:
        for path, data in files.items():
            entry = tarfile.TarInfo(f"{base}/{path}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return name
