"""ModelService over gRPC."""

from chatback.v1 import model_service_pb2 as pb
from chatback.v1 import model_service_pb2_grpc
from domain.model import ModelCatalog
from entrypoints.grpc.mapping import model_to_proto
from entrypoints.grpc.pipeline import Context


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """The models that a message may name."""

    def __init__(self, catalog: ModelCatalog) -> None:
        self._catalog = catalog

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        return pb.ListModelsResponse(models=map(model_to_proto, self._catalog.models))
