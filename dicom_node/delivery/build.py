"""The deliverer for a configured destination."""

from dicom_node.delivery.folder import FolderDeliverer
from dicom_node.delivery.store_scu import StoreScuDeliverer
from dicom_node.delivery.stow import StowDeliverer
from dicom_node.errors import SettingsInvalid
from dicom_node.records import Deliverer
from dicom_node.requestor import RemoteEntity
from dicom_node.settings import DestinationSettings


def build_deliverer(settings: DestinationSettings, ae_title: str) -> Deliverer:
    """`ae_title`: the node's own, under which it calls. Raises SettingsInvalid."""
    if settings.kind == "c-store":
        peer = RemoteEntity(settings.host, settings.port, settings.ae_title, ae_title, settings.timeout_s)
        return StoreScuDeliverer(settings.name, peer)
    if settings.kind == "stow-rs":
        return StowDeliverer(settings)
    if settings.path is None:
        raise SettingsInvalid(f"The destination {settings.name} needs a path.")
    return FolderDeliverer(settings.name, settings.path)
